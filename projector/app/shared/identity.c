/* identity.c - who may work on this outbox and write into this MySQL.
 *
 * Two names on one outbox would divide its events, each read model getting a part; one name on two
 * outboxes would mix them in one read model. Either goes unnoticed for long, so both are refused
 * before the first event. */
#include "projector/app/shared/identity.h"

#include "projector/infra/log.h"
#include "projector/infra/mysql/inheritance.h"

#include <string.h>

const char identity_not_kept[] =
    "nothing keeps this name from being started on another MongoDB: the table projector_source is "
    "missing, or this user may not use it. `projector schema --apply` creates it, sql/grants.sql "
    "has the grant";

bool identity_check_name(const Config *config, const OutboxIdentity *identity,
                         Failure *ret_failure) {
  if (!*identity->projector || !strcmp(identity->projector, config->name))
    return true;
  return failure_refuse(
      ret_failure,
      "the outbox %s.%s serves the projector \"%s\", and an outbox serves one name: with a second, "
      "each would apply a part of the events. For a second read model name a feed in the mapping "
      "file of \"%s\" (\"mongodb\": {\"feeds\": [\"%s_%s\"]}) and make it the outbox of "
      "\"%s\"; if \"%s\" was renamed, stop it and start once with `run --adopt`",
      config->mongodb.database, config->mongodb.outbox, identity->projector, identity->projector,
      config->mongodb.outbox, config->name, config->name, identity->projector);
}

bool identity_check_source(const OutboxIdentity *identity, const KeptSource *kept,
                           Failure *ret_failure) {
  if (!*kept->text || !strcmp(kept->text, identity->source))
    return true;
  return failure_refuse(
      ret_failure,
      "this MySQL database was filled from another MongoDB or outbox under this name (source %s, "
      "here %s). Is the mapping file's \"mongodb\" or \"mysql\" the right one? If MongoDB was "
      "moved "
      "or rebuilt, or the outbox renamed, start once with `run --adopt`",
      kept->text, *identity->source ? identity->source : "none yet");
}

bool identity_verify_name(const Config *config, MongoStore *store, Failure *ret_failure) {
  OutboxIdentity identity;
  return outbox_identity_look(store, &identity, ret_failure) &&
         identity_check_name(config, &identity, ret_failure);
}

bool identity_verify(const Config *config, MongoStore *store, Session *session,
                     Failure *ret_failure) {
  OutboxIdentity identity;
  KeptSource kept;
  return outbox_identity_look(store, &identity, ret_failure) &&
         identity_check_name(config, &identity, ret_failure) &&
         source_read(session, config->name, &kept, ret_failure) &&
         identity_check_source(&identity, &kept, ret_failure);
}

/* Once in the life of the process. */
static void warn_not_kept(void) {
  static gint warned;
  if (g_atomic_int_compare_and_exchange(&warned, 0, 1))
    log_warning("identity", LOG_FIELDS(LOG_TEXT("reason", identity_not_kept)));
}

static void report_changed_mapping(const Config *config, const OutboxIdentity *identity) {
  if (*identity->mapping && strcmp(identity->mapping, config->mapping_digest) != 0)
    log_warning("the mapping has changed since the last start: it applies to events from now on; "
                "`rebuild` updates the existing rows",
                NULL);
}

/* Before the first event under the new name, even if the process that should have done it has
 * died. */
static bool take_inheritance(const Config *config, MongoStore *store, Session *session,
                             const char *from, Failure *ret_failure) {
  int64_t events = 0;
  if (!*from)
    return true;
  if (strcmp(from, config->name) != 0 &&
      !inherit(session, from, config->name, &events, ret_failure))
    return false;
  if (events < 0)
    log_warning("the earlier name never worked with this MySQL: what it applied is not here, and "
                "`rebuild` or `replay` fills the tables",
                LOG_FIELDS(LOG_TEXT("earlier", from)));
  else
    log_info("what the earlier name has applied is known under this one",
             LOG_FIELDS(LOG_TEXT("earlier", from), LOG_NUMBER("events", events)));
  return outbox_identity_settle(store, config->name, ret_failure);
}

/* Asks MySQL first: if it refuses, the outbox must not be taken from its own projector. */
bool identity_claim(const Config *config, MongoStore *store, Session *session,
                    Failure *ret_failure) {
  bool adopt = config->settings.adopt;
  OutboxIdentity identity;
  KeptSource kept;
  if (!outbox_identity_look(store, &identity, ret_failure) ||
      !source_read(session, config->name, &kept, ret_failure) ||
      (!adopt && !identity_check_source(&identity, &kept, ret_failure)) ||
      !outbox_identity_take(store, config->name, config->mapping_digest, adopt, &identity,
                            ret_failure) ||
      !identity_check_name(config, &identity, ret_failure))
    return false;
  if (kept.kept && strcmp(kept.text, identity.source) != 0 &&
      (!source_write(session, config->name, identity.source, adopt, &kept, ret_failure) ||
       !identity_check_source(&identity, &kept, ret_failure)))
    return false;
  if (!take_inheritance(config, store, session, identity.inherits, ret_failure))
    return false;
  if (!kept.kept)
    warn_not_kept();
  report_changed_mapping(config, &identity);
  return true;
}
