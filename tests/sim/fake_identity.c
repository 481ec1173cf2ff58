/* fake_identity.c - the outbox's identity, behind infra/mongo/outbox_identity.h and
 * infra/mysql/source.h and inheritance.h. There is one outbox and one name: calls may fail, and
 * nothing is refused. */
#include "projector/infra/mongo/outbox_identity.h"
#include "projector/infra/mysql/inheritance.h"
#include "projector/infra/mysql/source.h"

#include "tests/sim/fake_mysql.h"

/* Each has the one name. */
static OutboxIdentity one_outbox(const char *name) {
  OutboxIdentity identity = {.source = "the one outbox"};
  g_strlcpy(identity.projector, name, sizeof identity.projector);
  return identity;
}

bool outbox_identity_look(MongoStore *store, OutboxIdentity *ret_identity, Failure *ret_failure) {
  (void)store;
  if (!call_begin(MONGO, "look at identity", ret_failure) ||
      !call_end(MONGO, "look at identity", ret_failure))
    return false;
  *ret_identity = one_outbox("");
  return true;
}

bool outbox_identity_take(MongoStore *store, const char *name, const char *mapping, bool adopt,
                          OutboxIdentity *ret_identity, Failure *ret_failure) {
  (void)store, (void)mapping, (void)adopt;
  if (!call_begin(MONGO, "take identity", ret_failure) ||
      !call_end(MONGO, "take identity", ret_failure))
    return false;
  *ret_identity = one_outbox(name ? name : "");
  return true;
}

/* Of one name there is no earlier one. */
bool outbox_identity_settle(MongoStore *store, const char *name, Failure *ret_failure) {
  (void)store, (void)name, (void)ret_failure;
  g_assert_not_reached();
}

bool inherit(Session *session, const char *from, const char *to, int64_t *ret_events,
             Failure *ret_failure) {
  (void)session, (void)from, (void)to, (void)ret_events, (void)ret_failure;
  g_assert_not_reached();
}

bool source_read(Session *session, const char *projector, KeptSource *ret_source,
                 Failure *ret_failure) {
  (void)projector;
  if (!statement_begin(session, AT_FENCE, "read source", ret_failure) ||
      !statement_end(session, "read source", ret_failure))
    return false;
  *ret_source = (KeptSource){.kept = true, .text = "the one outbox"};
  return true;
}

bool source_write(Session *session, const char *projector, const char *source, bool overwrite,
                  KeptSource *ret_source, Failure *ret_failure) {
  (void)source, (void)overwrite;
  return source_read(session, projector, ret_source, ret_failure);
}
