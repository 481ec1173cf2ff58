/* identity.h - one name per outbox, and one outbox behind each name in MySQL. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox_identity.h"
#include "projector/infra/mysql/source.h"

/* Claims the outbox for the configured name, and records in MySQL where its rows come from.
 * FAILURE_CONFIG when the outbox serves another name, or when MySQL was filled from another outbox,
 * unless started with `--adopt`. Logs once that the mapping has changed. */
bool identity_claim(const Config *config, MongoStore *store, Session *session,
                    Failure *ret_failure);

/* For a command that works beside the projector: the same refusals, and nothing is claimed. */
bool identity_verify(const Config *config, MongoStore *store, Session *session,
                     Failure *ret_failure);

/* For a command that uses MongoDB alone: refuses an outbox that serves another name. */
bool identity_verify_name(const Config *config, MongoStore *store, Failure *ret_failure);

/* The two refusals on their own, for `check`. Returns false when refused. */
bool identity_check_name(const Config *config, const OutboxIdentity *identity,
                         Failure *ret_failure);
bool identity_check_source(const OutboxIdentity *identity, const KeptSource *kept,
                           Failure *ret_failure);

/* The warning for an installation without the table or the grants. */
extern const char identity_not_kept[];
