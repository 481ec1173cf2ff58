/* examine.c - the looks at the outbox's collection and at information_schema. */
#include "projector/app/process/examine.h"

#include "projector/app/process/service.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/shape.h"
#include "projector/infra/mysql/catalog.h"

enum { FRESH_MS = 2000 };

static int64_t examined_at; /* monotonic, us */

static bool log_findings(const GPtrArray *findings, FailureSource source, Failure *ret_failure) {
  for (guint i = 0; i < findings->len; i++) {
    const Finding *finding = findings->pdata[i];
    if (finding->error)
      return failure_set(ret_failure, FAILURE_CONFIG, source, 0, "%s", finding->text);
    log_warning(source == SOURCE_MYSQL ? "tables" : "outbox",
                LOG_FIELDS(LOG_TEXT("reason", finding->text)));
  }
  return true;
}

static bool check_outbox(MongoStore *store, Failure *ret_failure) {
  g_autoptr(GPtrArray) findings = findings_new();
  return mongo_check_outbox(store, findings, NULL, ret_failure) &&
         mongo_check_copies(store, findings, ret_failure) &&
         log_findings(findings, SOURCE_MONGODB, ret_failure);
}

static bool check_tables(const Config *config, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  g_autoptr(GPtrArray) findings =
      session ? catalog_check(session, config->mapping, ret_failure) : NULL;
  if (!findings)
    return false;
  log_info("MySQL", LOG_FIELDS(LOG_TEXT("server", session_server(session))));
  if (!log_findings(findings, SOURCE_MYSQL, ret_failure))
    return false;
  service_is_up();
  return true;
}

bool examine(const Config *config, MongoStore *store, Failure *ret_failure) {
  if (!check_outbox(store, ret_failure) || !check_tables(config, ret_failure))
    return false;
  examined_at = clock_us();
  return true;
}

bool examine_again(const Config *config, MongoStore *store, Failure *ret_failure) {
  Failure of_outbox = {0};
  if (clock_us() - examined_at < (int64_t)FRESH_MS * 1000)
    return true;
  if (!check_outbox(store, &of_outbox))
    log_failure(LOG_LEVEL_ERROR, "outbox", &of_outbox);
  return check_tables(config, ret_failure);
}
