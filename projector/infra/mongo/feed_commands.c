/* feed_commands.c - what copying into feeds sends to MongoDB. */
#include "projector/infra/mongo/feeds_private.h"

#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/outbox_identity.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

/* --- copies --------------------------------------------------------------------------------- */

enum {
  CHUNK_EVENTS = 1000,   /* most copies in a command */
  CHUNK_BYTES = 4 << 20, /* their size from which on they are sent */
  DUPLICATE_KEY = 11000,
};

static void append_id(bson_t *array, uint32_t at, const bson_t *document) {
  char buffer[16];
  const char *key;
  bson_iter_t iter;
  bson_uint32_to_string(at, &key, buffer, sizeof buffer);
  if (bson_iter_init_find(&iter, document, "_id"))
    bson_append_iter(array, key, -1, &iter);
}

/* Which of these ids the collection has: Id → the document that it is in. */
static GHashTable *find_known(mongoc_collection_t *collection, const bson_t *ids,
                              Failure *ret_failure) {
  g_autoptr(GHashTable) known =
      g_hash_table_new_full(id_hash_key, id_equal_key, g_free, (GDestroyNotify)bson_destroy);
  bson_t *filter = BCON_NEW("_id", "{", "$in", BCON_ARRAY(ids), "}");
  bson_t *options = BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}");
  mongo_append_simple(options);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, filter, options, NULL);
  const bson_t *document, *reply;
  bson_error_t error;
  while (mongoc_cursor_next(cursor, &document)) {
    bson_t *copy = bson_copy(document);
    bson_iter_t iter;
    Id id;
    if (bson_iter_init_find(&iter, copy, "_id") && id_from_iter(&iter, &id))
      g_hash_table_replace(known, g_memdup2(&id, sizeof id), copy);
    else
      bson_destroy(copy);
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(options);
  bson_destroy(filter);
  return good ? g_steal_pointer(&known) : NULL;
}

/* `otherwise`: of an id that is not one of the contract's, which no collation concerns. */
static bool contains(GHashTable *known, const bson_t *copy, bool otherwise) {
  bson_iter_t iter;
  Id id;
  if (!bson_iter_init_find(&iter, copy, "_id") || !id_from_iter(&iter, &id))
    return otherwise;
  return g_hash_table_contains(known, &id);
}

/* Leaves out the copies that are in the feed. The first was refused because its id is there
 * already, so it has to be one of them: a collation takes ids for equal that are not, and what is
 * called a copy would be another event. */
static bool drop_known(mongoc_collection_t *feed, const bson_t **copies, size_t *count,
                       Failure *ret_failure) {
  bson_t ids = BSON_INITIALIZER;
  for (size_t i = 0; i < *count; i++)
    append_id(&ids, (uint32_t)i, copies[i]);
  g_autoptr(GHashTable) known = find_known(feed, &ids, ret_failure);
  bson_destroy(&ids);
  if (!known)
    return false;
  if (!contains(known, copies[0], true))
    return failure_set(ret_failure, FAILURE_DATA, SOURCE_MONGODB, DUPLICATE_KEY,
                       "it has another event whose _id its collation takes for equal");
  size_t kept = 0;
  for (size_t i = 1; i < *count; i++)
    if (!contains(known, copies[i], false))
      copies[kept++] = copies[i];
  *count = kept;
  return true;
}

/* Whether an ordered insert ended at a document whose id is there already, and at which. */
static bool ended_at_known(const bson_t *reply, size_t *ret_index) {
  bson_iter_t iter, error, member;
  if (!bson_iter_init(&iter, reply) || !bson_iter_find_descendant(&iter, "writeErrors.0", &error) ||
      !bson_iter_recurse(&error, &iter) ||
      !bson_iter_find_descendant(&iter, "keyPattern._id", &member) ||
      !bson_iter_recurse(&error, &iter) || !bson_iter_find(&iter, "index"))
    return false;
  *ret_index = (size_t)bson_iter_as_int64(&iter);
  return true;
}

/* Whether the majority has what came before the end. */
static bool is_confirmed(const bson_t *reply) {
  bson_iter_t iter, error;
  return !bson_iter_init(&iter, reply) ||
         !bson_iter_find_descendant(&iter, "writeConcernErrors.0", &error);
}

/* Not by $merge, which inserts what follows a document that was refused. */
bool feed_insert(Outbox *outbox, const char *feed, const bson_t **copies, size_t count,
                 Failure *ret_failure) {
  mongoc_collection_t *collection = outbox_neighbour(outbox, feed);
  /* The server has had these documents already; by default the driver refuses empty keys. */
  bson_t *options = BCON_NEW("ordered", BCON_BOOL(true), "validate", BCON_BOOL(false),
                             "writeConcern", "{", "w", BCON_UTF8("majority"), "}");
  bool good = true;
  while (good && count > 0) {
    bson_error_t error;
    bson_t reply;
    size_t done = count;
    good = mongoc_collection_insert_many(collection, copies, count, options, &reply, &error);
    bool ended = !good && ended_at_known(&reply, &done) && done < count;
    bool known = ended && is_confirmed(&reply);
    if (ended && !known)
      failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MONGODB, 0,
                  "the majority has not confirmed the copies");
    else if (!good && !known)
      mongo_fail(&error, &reply, ret_failure);
    bson_destroy(&reply);
    copies += known ? done : count;
    count -= known ? done : count;
    good |= known && drop_known(collection, copies, &count, ret_failure);
  }
  bson_destroy(options);
  mongoc_collection_destroy(collection);
  return good || failure_prefix(ret_failure, "the feed %s", feed);
}

static mongoc_cursor_t *find_unfed(Outbox *outbox, const char *feed, const bson_t *filter) {
  bson_t *unfed = BCON_NEW("$and", "[", BCON_DOCUMENT(filter), "{", "fed_to", "{", "$ne",
                           BCON_UTF8(feed), "}", "}", "]");
  /* Events selected by a claim, or just marked, may not be majority-committed yet; the copy is,
   * before anything is deleted. */
  bson_t *options = outbox_sorted_options(outbox);
  BCON_APPEND(options, "allowDiskUse", BCON_BOOL(true), "batchSize", BCON_INT32(FIRST_BATCH),
              "readConcern", "{", "level", BCON_UTF8("local"), "}");
  mongo_append_simple(options);
  mongoc_cursor_t *cursor =
      mongoc_collection_find_with_opts(outbox_collection(outbox), unfed, options, NULL);
  bson_destroy(options);
  bson_destroy(unfed);
  return cursor;
}

static bool insert_chunk(Outbox *outbox, const char *feed, GPtrArray *copies,
                         Failure *ret_failure) {
  g_autofree const bson_t **list = g_new(const bson_t *, copies->len);
  for (guint i = 0; i < copies->len; i++)
    list[i] = copies->pdata[i];
  bool good = feed_insert(outbox, feed, list, copies->len, ret_failure);
  g_ptr_array_set_size(copies, 0);
  return good;
}

bool feed_copy_into(Outbox *outbox, const char *feed, const bson_t *filter, Failure *ret_failure) {
  g_autoptr(GPtrArray) copies = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  mongoc_cursor_t *cursor = find_unfed(outbox, feed, filter);
  AnswerSize size = {.batch = FIRST_BATCH};
  size_t bytes = 0;
  const bson_t *document, *reply;
  bson_error_t error;
  bool good = true;
  while (good && mongoc_cursor_next(cursor, &document)) {
    outbox_suit_answers(cursor, &size, document);
    bson_t *copy = bson_new();
    feed_append_copy(document, copy);
    g_ptr_array_add(copies, copy);
    bytes += copy->len;
    if (copies->len < CHUNK_EVENTS && bytes < CHUNK_BYTES)
      continue;
    good = insert_chunk(outbox, feed, copies, ret_failure);
    bytes = 0;
  }
  good = good && (!mongoc_cursor_error_document(cursor, &error, &reply) ||
                  mongo_fail(&error, reply, ret_failure));
  mongoc_cursor_destroy(cursor);
  return good && insert_chunk(outbox, feed, copies, ret_failure);
}

/* --- events that stay in the outbox ---------------------------------------------------------- */

/* {"$or": [{"fed_to": {"$ne": feed}} …]} */
static void append_unfed(bson_t *filter, const Outbox *outbox) {
  bson_t list = BSON_INITIALIZER;
  const char *const *feeds = feeds_of(outbox_store(outbox));
  for (uint32_t i = 0; feeds[i]; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string(i, &key, buffer, sizeof buffer);
    BCON_APPEND(&list, key, "{", "fed_to", "{", "$ne", BCON_UTF8(feeds[i]), "}", "}");
  }
  BSON_APPEND_ARRAY(filter, "$or", &list);
  bson_destroy(&list);
}

bool feeds_look(Outbox *outbox, bool *ret_any, Moment *ret_moment, Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER, reply;
  append_unfed(&filter, outbox);
  const char *name = mongoc_collection_get_name(outbox_collection(outbox));
  bson_t *command =
      BCON_NEW("find", BCON_UTF8(name), "filter", BCON_DOCUMENT(&filter), "projection", "{", "_id",
               BCON_INT32(1), "}", "limit", BCON_INT32(1), "singleBatch", BCON_BOOL(true),
               "readConcern", "{", "level", BCON_UTF8("snapshot"), "}");
  mongo_append_simple(command);
  bson_error_t error;
  bool good = mongoc_collection_command_with_opts(outbox_collection(outbox), command, NULL, NULL,
                                                  &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_iter_t iter, found;
  *ret_moment = (Moment){0};
  *ret_any = false;
  if (good && bson_iter_init(&iter, &reply) &&
      bson_iter_find_descendant(&iter, "cursor.atClusterTime", &found) &&
      BSON_ITER_HOLDS_TIMESTAMP(&found))
    bson_iter_timestamp(&found, &ret_moment->seconds, &ret_moment->increment);
  if (good && bson_iter_init(&iter, &reply))
    *ret_any = bson_iter_find_descendant(&iter, "cursor.firstBatch.0", &found);
  bson_destroy(&reply);
  bson_destroy(command);
  bson_destroy(&filter);
  return good;
}

bool feeds_have_marked(Outbox *outbox, bool *ret_any, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_find(outbox, BCON_NEW("fed_at", "{", "$exists", BCON_BOOL(true), "}"),
                  BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}", "limit", BCON_INT64(1)));
  *ret_any = event_cursor_next(cursor, ret_failure) != NULL;
  return ret_failure->class == FAILURE_NONE;
}

EventCursor *feeds_find(Outbox *outbox, const Moment *moment) {
  bson_t *filter = bson_new();
  append_unfed(filter, outbox);
  bson_t *options = outbox_sorted_options(outbox);
  BCON_APPEND(options, "allowDiskUse", BCON_BOOL(true), "batchSize", BCON_INT32(FEED_PAGE),
              "readConcern", "{", "level", BCON_UTF8("snapshot"), "atClusterTime",
              BCON_TIMESTAMP(moment->seconds, moment->increment), "}");
  return outbox_find_briefly(outbox, filter, options);
}

void feeds_append_mark(const Outbox *outbox, bson_t *set, const char *at) {
  bson_t names = BSON_INITIALIZER;
  const char *const *feeds = feeds_of(outbox_store(outbox));
  for (uint32_t i = 0; feeds[i]; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string(i, &key, buffer, sizeof buffer);
    BSON_APPEND_UTF8(&names, key, feeds[i]);
  }
  /* A writer that serializes objects of a class may have written the field as null. */
  BCON_APPEND(set, "fed_at", BCON_UTF8(*feeds ? at : "$$REMOVE"), "fed_to", "{", "$cond", "[",
              BCON_BOOL(*feeds == NULL), BCON_UTF8("$$REMOVE"), "{", "$setUnion", "[", "{", "$cond",
              "[", "{", "$isArray", BCON_UTF8("$fed_to"), "}", BCON_UTF8("$fed_to"), "[", "]", "]",
              "}", "{", "$literal", BCON_ARRAY(&names), "}", "]", "}", "]", "}");
  bson_destroy(&names);
}

bool feed_mark(Outbox *outbox, const bson_t *filter, int64_t *ret_count, Failure *ret_failure) {
  bson_t marked = BSON_INITIALIZER, set = BSON_INITIALIZER;
  bson_concat(&marked, filter);
  append_unfed(&marked, outbox);
  feeds_append_mark(outbox, &set, "$$NOW");
  bson_t *update = BCON_NEW("0", "{", "$set", BCON_DOCUMENT(&set), "}");
  bool good = outbox_update_many(outbox, &marked, update, ret_count, ret_failure);
  bson_destroy(update);
  bson_destroy(&set);
  bson_destroy(&marked);
  return good;
}

/* --- views ---------------------------------------------------------------------------------- */

static bool view_feed(MongoStore *store, const char *feed, FeedView *ret_view,
                      Failure *ret_failure) {
  FeedView view = {.reader_lag_ms = -1};
  OutboxIdentity identity;
  g_strlcpy(view.name, feed, sizeof view.name);
  if (!mongo_estimate(store, feed, &view.events, ret_failure) ||
      !outbox_identity_look_at(store, feed, &identity, ret_failure))
    return false;
  g_strlcpy(view.reader, identity.projector, sizeof view.reader);
  if (*view.reader) {
    LeaseView lease;
    if (!lease_look(store, view.reader, &lease, ret_failure))
      return false;
    view.reader_works = lease.held;
    view.reader_lag_ms = lease.held ? lease.lag_ms : -1;
  }
  *ret_view = view;
  return true;
}

bool feeds_view(MongoStore *store, FeedView ret_views[static FEEDS_MAX], unsigned *ret_count,
                Failure *ret_failure) {
  const char *const *feeds = feeds_of(store);
  *ret_count = 0;
  for (; feeds[*ret_count]; ++*ret_count)
    if (!view_feed(store, feeds[*ret_count], &ret_views[*ret_count], ret_failure))
      return false;
  return true;
}

/* The leases of projectors that copy into our outbox; also of those that did so once. */
static EventCursor *find_sources(Outbox *leases) {
  const MongoSettings *settings = mongo_store_settings(outbox_store(leases));
  return outbox_find(leases, BCON_NEW("copies_to", BCON_UTF8(settings->outbox)),
                     BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}"));
}

static bool find_outbox_of(Outbox *leases, FeedSource *source, Failure *ret_failure) {
  static const char prefix[] = "outbox:";
  g_autoptr(EventCursor) cursor =
      outbox_find(leases, BCON_NEW("projector", BCON_UTF8(source->name)),
                  BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}"));
  const bson_t *document;
  bson_iter_t id;
  while ((document = event_cursor_next(cursor, ret_failure)))
    if (bson_iter_init_find(&id, document, "_id") && BSON_ITER_HOLDS_UTF8(&id) &&
        g_str_has_prefix(bson_iter_utf8(&id, NULL), prefix))
      g_strlcpy(source->outbox, bson_iter_utf8(&id, NULL) + strlen(prefix), sizeof source->outbox);
  return ret_failure->class == FAILURE_NONE;
}

bool feeds_find_source(MongoStore *store, FeedSource *ret_source, Failure *ret_failure) {
  g_autoptr(Outbox) leases = outbox_new_on(store, "", "projector_leases");
  g_autoptr(EventCursor) cursor = find_sources(leases);
  FeedSource source = {.lag_ms = -1};
  const bson_t *document;
  bson_iter_t id;
  while (!source.works && (document = event_cursor_next(cursor, ret_failure))) {
    LeaseView lease;
    if (!bson_iter_init_find(&id, document, "_id") || !BSON_ITER_HOLDS_UTF8(&id))
      continue;
    if (!lease_look(store, bson_iter_utf8(&id, NULL), &lease, ret_failure))
      return false;
    if (*source.name && !lease.held)
      continue;
    g_strlcpy(source.name, bson_iter_utf8(&id, NULL), sizeof source.name);
    source.works = lease.held;
    source.lag_ms = lease.held ? lease.lag_ms : -1;
  }
  if (ret_failure->class != FAILURE_NONE ||
      (*source.name && !find_outbox_of(leases, &source, ret_failure)))
    return false;
  *ret_source = source;
  return true;
}
