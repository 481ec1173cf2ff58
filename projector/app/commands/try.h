/* try.h - `projector try`: the parts that its files share. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/domain/rehearsal.h"

#include <jansson.h>

/* --- try_report.c --- */

/* The outcome of an event, as JSON: event_id, aggregate, outcome, error, changes, sql. */
json_t *try_report(const Event *event, const Rehearsed *done, bool mariadb);
/* The same for people. */
void try_print(const json_t *report);
/* "applied", "superseded", "ignored", "known", "failed", "waits". */
const char *try_outcome(const Rehearsed *done);
/* The row as a JSON object of all its columns. */
json_t *try_row_json(const Projection *projection, const Value *values);

/* --- try_cases.c --- */

typedef enum CaseFormat { FORMAT_TAP, FORMAT_JUNIT, FORMAT_JSON } CaseFormat;

/* Runs the cases of the file (given rows, events, expected rows) and prints the results to stdout.
 * Returns false when the file itself is invalid. */
bool try_cases(const Config *config, const char *file, CaseFormat format, bool *ret_good,
               Failure *ret_failure);

/* --- try_documents.c --- */

/* All documents of a JSON text: one, a list, or several in sequence. NULL on failure. */
json_t *try_documents(const char *text, size_t length, const char *name, Failure *ret_failure);
/* A document from (extended) JSON; NULL when it is none. Free with bson_destroy. */
bson_t *try_bson(const json_t *json, const char *path, Failure *ret_failure);
/* The event of a document of the outbox; NULL when it is no document. */
Event *try_event(const Config *config, const json_t *json, const char *path, Failure *ret_failure);
