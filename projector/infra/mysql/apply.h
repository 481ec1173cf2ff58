/* apply.h - turns folded changes into statements on the target tables. */
#pragma once

#include "projector/domain/fold.h"
#include "projector/infra/mysql/session.h"

/* Whose statement failed. */
typedef struct Culprit {
  const Projection *projection;
  const Change *statement; /* of an sql op; NULL: rows of many events */
} Culprit;

/* Runs all steps in the open transaction. A row that an update needs and that is not there is a
 * FAILURE_DATA "row missing"; the caller finds out whose. */
bool apply_fold(Session *session, const Fold *fold, Culprit *ret_culprit, Failure *ret_failure);
