/* last_commit.c - the event that was committed last, as MongoDB keeps it. */
#include "projector/infra/mongo/last_commit.h"

#include <string.h>

void last_commit_append(bson_t *document, const char *key, const LastCommit *last) {
  if (last->at_ms == 0)
    BSON_APPEND_NULL(document, key);
  else
    BCON_APPEND(document, key, "{", "event_id", BCON_UTF8(last->event_id), "kind",
                BCON_UTF8(id_kind_name(last->kind)), "at", BCON_DATE_TIME(last->at_ms), "}");
}

LastCommit last_commit_at(const bson_t *document, const char *path) {
  LastCommit last = {0};
  bson_iter_t iter, found, member;
  if (!bson_iter_init(&iter, document) || !bson_iter_find_descendant(&iter, path, &found) ||
      !BSON_ITER_HOLDS_DOCUMENT(&found) || !bson_iter_recurse(&found, &member))
    return last;
  bool has_kind = false;
  while (bson_iter_next(&member)) {
    const char *key = bson_iter_key(&member);
    if (BSON_ITER_HOLDS_DATE_TIME(&member) && !strcmp(key, "at"))
      last.at_ms = bson_iter_date_time(&member);
    else if (BSON_ITER_HOLDS_UTF8(&member) && !strcmp(key, "event_id"))
      g_strlcpy(last.event_id, bson_iter_utf8(&member, NULL), sizeof last.event_id);
    else if (BSON_ITER_HOLDS_UTF8(&member) && !strcmp(key, "kind"))
      has_kind = id_kind_from_name(bson_iter_utf8(&member, NULL), &last.kind);
  }
  return has_kind ? last : (LastCommit){0};
}
