/* draw.c - a small sample comes in rounds of $sample, without their repetitions. For a large one
 * everything is read, and each is taken with the probability that fills the sample. */
#include "projector/app/reconcile/draw.h"

enum {
  FEW = 10,        /* "few" is less than one in so many */
  BARREN_MAX = 50, /* rounds in sequence that find nothing new: there are no others */
};

struct Draw {
  Entities *entities;
  int64_t left;     /* to be drawn */
  int64_t unread;   /* entities that were not read yet, as far as known; -1: not counted yet */
  bool all;         /* reads all of them */
  bson_t *after;    /* the last one read; NULL: none */
  GHashTable *seen; /* GBytes of the `_id`s drawn so far */
};

Draw *draw_new(Entities *entities, int64_t size) {
  Draw *draw = g_new0(Draw, 1);
  draw->entities = entities;
  draw->left = size;
  draw->unread = -1;
  draw->seen =
      g_hash_table_new_full(g_bytes_hash, g_bytes_equal, (GDestroyNotify)g_bytes_unref, NULL);
  return draw;
}

void draw_free(Draw *draw) {
  if (!draw)
    return;
  if (draw->after)
    bson_destroy(draw->after);
  g_hash_table_unref(draw->seen);
  g_free(draw);
}

static bool is_new(Draw *draw, const bson_t *document) {
  bson_t *mark = entity_mark(document);
  bool added = g_hash_table_add(draw->seen, g_bytes_new(bson_get_data(mark), mark->len));
  bson_destroy(mark);
  return added;
}

/* Some of what was drawn in this round may have been drawn before. */
static bool draw_at_random(Draw *draw, unsigned page, GPtrArray *documents, Failure *ret_failure) {
  for (int barren = 0; draw->left > 0 && documents->len == 0 && barren < BARREN_MAX; barren++) {
    g_autoptr(GPtrArray) drawn = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
    if (!entities_sample(draw->entities, MIN(draw->left, page), drawn, ret_failure))
      return false;
    for (guint i = 0; i < drawn->len; i++)
      if (is_new(draw, drawn->pdata[i]))
        g_ptr_array_add(documents, bson_copy(drawn->pdata[i]));
  }
  draw->left -= documents->len;
  return true;
}

static bool is_taken(const Draw *draw) {
  return draw->left >= draw->unread ||
         g_random_double() * (double)draw->unread < (double)draw->left;
}

static bool draw_from_all(Draw *draw, unsigned page, GPtrArray *documents, Failure *ret_failure) {
  while (draw->left > 0 && documents->len == 0) {
    g_autoptr(GPtrArray) read = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
    if (!entities_page(draw->entities, draw->after, page, read, ret_failure))
      return false;
    if (read->len == 0)
      return true;
    if (draw->after)
      bson_destroy(draw->after);
    draw->after = entity_mark(read->pdata[read->len - 1]);
    for (guint i = 0; draw->left > 0 && i < read->len; i++, draw->unread--)
      if (is_taken(draw)) {
        g_ptr_array_add(documents, bson_copy(read->pdata[i]));
        draw->left--;
      }
  }
  return true;
}

bool draw_page(Draw *draw, unsigned page, GPtrArray *documents, Failure *ret_failure) {
  if (draw->unread < 0) {
    if (!entities_estimate(draw->entities, &draw->unread, ret_failure))
      return false;
    draw->all = draw->left > draw->unread / FEW;
  }
  return draw->all ? draw_from_all(draw, page, documents, ret_failure)
                   : draw_at_random(draw, page, documents, ret_failure);
}
