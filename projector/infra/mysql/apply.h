/* apply.h - turns folded changes into statements on the target tables. */
#pragma once

#include "projector/domain/fold.h"
#include "projector/infra/mysql/session.h"

/* Whose statement failed. */
typedef struct Culprit {
  const Projection *projection;
  const Change *statement; /* of an sql op; NULL: rows of many events */
} Culprit;

/* Runs all steps in the open transaction. If an update finds no row, it fails with FAILURE_DATA
 * "row missing"; the caller determines whose. */
bool apply_fold(Session *session, const Fold *fold, Culprit *ret_culprit, Failure *ret_failure);

/* The same statements, in the words of MySQL or of MariaDB, as texts that are added to `statements`
 * (of char *). */
void apply_print(const Fold *fold, bool mariadb, GPtrArray *statements);
