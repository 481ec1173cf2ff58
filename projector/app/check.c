/* check.c - `projector check`: everything that can be known before the first event, one line each.
 */
#include "projector/app/command.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mysql/catalog.h"

#include <jansson.h>
#include <stdio.h>

typedef struct Report {
  bool as_json, any_error, unreachable;
} Report;

static void tell(Report *report, const char *verdict, const char *subject, const char *text) {
  if (report->as_json) {
    json_t *line =
        json_pack("{s:s, s:s, s:s}", "verdict", verdict, "subject", subject, "text", text);
    char *dump = json_dumps(line, JSON_COMPACT);
    printf("%s\n", dump);
    free(dump);
    json_decref(line);
  } else {
    printf("%-8s %-8s %s\n", verdict, subject, text);
  }
}

static void good(Report *report, const char *subject, const char *text) {
  tell(report, "ok", subject, text);
}

static void wrong(Report *report, const char *subject, const char *text) {
  report->any_error = true;
  tell(report, "error", subject, text);
}

static void failed(Report *report, const char *subject, const Failure *failure) {
  report->unreachable |= failure->class == FAILURE_UNAVAILABLE;
  wrong(report, subject, failure->message);
}

static void check_indexes(Report *report, Outbox *outbox) {
  static const char *const order[] = {"occurred_at", "version", "_id", NULL};
  static const char *const aggregate[] = {"aggregate_type", "aggregate_id", "occurred_at", NULL};
  const char *const *wanted[] = {order, aggregate};
  for (size_t i = 0; i < G_N_ELEMENTS(wanted); i++) {
    Failure failure = {0};
    bool found;
    g_autofree char *fields = g_strjoinv(", ", (char **)wanted[i]);
    g_autofree char *text = g_strdup_printf("outbox index on (%s)", fields);
    g_autofree char *missing = g_strdup_printf(
        "the outbox has no index on (%s), so look-ups read all of it; `outbox init` makes it",
        fields);
    if (!outbox_has_index(outbox, wanted[i], &found, &failure))
      failed(report, "mongodb", &failure);
    else if (found)
      good(report, "mongodb", text);
    else
      tell(report, "warning", "mongodb", missing);
  }
}

static void check_mongodb(Report *report, const Config *config) {
  Failure failure = {0};
  g_autoptr(MongoStore) store = mongo_store_open(&config->mongodb, &failure);
  if (!store) {
    failed(report, "mongodb", &failure);
    return;
  }
  good(report, "mongodb", mongo_store_server(store));
  g_autoptr(Outbox) outbox = outbox_new(store, "");
  OutboxCounts counts;
  if (!outbox_count(outbox, &counts, &failure)) {
    failed(report, "mongodb", &failure);
    return;
  }
  g_autofree char *text =
      g_strdup_printf("outbox %s.%s can be read", config->mongodb.database, config->mongodb.outbox);
  good(report, "mongodb", text);
  check_indexes(report, outbox);
}

static void check_mysql(Report *report, const Config *config) {
  Failure failure = {0};
  g_autoptr(Session) session = session_open(&config->mysql, &failure);
  if (!session) {
    failed(report, "mysql", &failure);
    return;
  }
  good(report, "mysql", session_server(session));
  g_autoptr(GPtrArray) findings = catalog_check(session, config->mapping, &failure);
  if (!findings) {
    failed(report, "mysql", &failure);
    return;
  }
  bool any_error = false;
  for (guint i = 0; i < findings->len; i++) {
    const Finding *finding = findings->pdata[i];
    any_error |= finding->error;
    if (finding->error)
      wrong(report, "tables", finding->text);
    else
      tell(report, "warning", "tables", finding->text);
  }
  if (!any_error)
    good(report, "tables", "the projector's tables and the projections' fit the mapping");
}

int command_check(int argc, char **argv) {
  Report report = {0};
  gboolean as_json = FALSE;
  const GOptionEntry options[] = {
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON object a line", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(&argc, &argv, "- preflight",
                     "Looks at file, stores and tables; changes nothing.", options, &config,
                     &status))
    return status;
  report.as_json = as_json;
  good(&report, "file", "the mapping file is valid");
  check_mongodb(&report, config);
  check_mysql(&report, config);
  return report.unreachable ? EXIT_UNREACHABLE : report.any_error ? EXIT_WRONG : EXIT_GOOD;
}
