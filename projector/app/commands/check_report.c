/* check_report.c - prints a line for people or for machines. */
#include "projector/app/commands/check_report.h"

#include "projector/app/shared/command.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

void check_print(CheckReport *report, const char *verdict, const char *subject, const char *text) {
  report->any_error |= !strcmp(verdict, "error");
  if (report->as_json) {
    json_t *line =
        json_pack("{s:s, s:s, s:s}", "verdict", verdict, "subject", subject, "text", text);
    command_print_json(line, JSON_COMPACT);
    json_decref(line);
  } else {
    printf("%-8s %-8s ", verdict, subject);
    print_clean(stdout, text);
    putchar('\n');
  }
}

void check_good(CheckReport *report, const char *subject, const char *text) {
  check_print(report, "ok", subject, text);
}

void check_wrong(CheckReport *report, const char *subject, const char *text) {
  check_print(report, "error", subject, text);
}

void check_failed(CheckReport *report, const char *subject, const Failure *failure) {
  report->unreachable |= failure->class == FAILURE_UNAVAILABLE;
  check_wrong(report, subject, failure->message);
}

void check_print_format(CheckReport *report, const char *verdict, const char *subject,
                        const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  g_autofree char *text = g_strdup_vprintf(format, arguments);
  va_end(arguments);
  check_print(report, verdict, subject, text);
}

bool check_print_findings(CheckReport *report, const char *subject, const GPtrArray *findings,
                          const char *all_well) {
  bool any_error = false;
  for (guint i = 0; i < findings->len; i++) {
    const Finding *finding = findings->pdata[i];
    any_error |= finding->error;
    if (finding->error)
      check_wrong(report, subject, finding->text);
    else
      check_print(report, "warning", subject, finding->text);
  }
  if (!any_error && all_well)
    check_good(report, subject, all_well);
  return !any_error;
}
