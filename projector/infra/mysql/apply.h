/* apply.h - turns folded changes into statements on the target tables. */
#pragma once

#include "projector/domain/fold.h"
#include "projector/infra/mysql/session.h"

/* Runs all steps in the open transaction. A row that an update needs and that is not there is a
 * FAILURE_DATA "row missing"; the caller finds out whose. `*ret_culprit` is the projection whose
 * statement failed. */
bool apply_fold(Session *session, const Fold *fold, const Projection **ret_culprit,
                Failure *ret_failure);
