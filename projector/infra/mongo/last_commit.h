/* last_commit.h - the event that was committed last, in the lease and in the claims:
 * { event_id, kind, at }, or null. */
#pragma once

#include "projector/domain/event.h"

void last_commit_append(bson_t *document, const char *key, const LastCommit *last);
/* `path`: with dots. What cannot be read is as if it were not there. */
LastCommit last_commit_at(const bson_t *document, const char *path);
