/* check_report.h - the lines of `projector check`. */
#pragma once

#include "projector/infra/finding.h"
#include "projector/infra/mongo/inspect.h"
#include "projector/infra/mongo/outbox_identity.h"
#include "projector/infra/mysql/inspect.h"

typedef struct CheckReport {
  bool as_json, any_error, unreachable;
  bool has_mongodb, has_mysql; /* the facts are there */
  bool has_identity;
  OutboxIdentity identity;
  MongoFacts mongodb;
  MysqlFacts mysql;
} CheckReport;

/* One line; the verdict is "ok", "warning" or "error". */
void check_print(CheckReport *report, const char *verdict, const char *subject, const char *text);
void check_print_format(CheckReport *report, const char *verdict, const char *subject,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));
void check_good(CheckReport *report, const char *subject, const char *text);
void check_wrong(CheckReport *report, const char *subject, const char *text);
void check_failed(CheckReport *report, const char *subject, const Failure *failure);
/* `all_well` when there is no error among them, which is given back. */
bool check_print_findings(CheckReport *report, const char *subject, const GPtrArray *findings,
                          const char *all_well);
