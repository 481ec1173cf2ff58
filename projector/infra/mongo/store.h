/* store.h - the connection to MongoDB, shared by all threads.
 *
 * Reads and writes are majority by default: what a failover could take back is not acted upon. */
#pragma once

#include "projector/domain/event_fields.h"

#include <glib.h>
#include <mongoc/mongoc.h>

typedef struct MongoSettings {
  const char *uri;
  const char *database;
  const char *outbox; /* collection */
  /* Of connecting, and of everything; 0: what the URI says, or the usual. */
  int64_t connect_ms, timeout_ms;
  bool archive; /* applied events move to "<outbox>_archive" */
  const char *const
      *feeds;         /* collections that get a copy of each event, NULL-terminated; or NULL */
  EventFields fields; /* where the outbox's documents keep what the contract's do; {0}: there */
} MongoSettings;

/* Where an outbox's applied events go; to be freed. Here, because the simulation has no store.c. */
static inline char *mongo_archive_name(const char *outbox) {
  return g_strconcat(outbox, "_archive", NULL);
}

typedef struct MongoStore MongoStore;

/* Whether the driver can read the connection string. The failure names the key and quotes nothing:
 * a password may stand anywhere in a string that cannot be read. `*ret_weakness` is what the string
 * leaves open to a man in the middle, as a message; NULL: nothing. */
bool mongo_uri_check(const char *uri, const char **ret_weakness, Failure *ret_failure);
const char *mongo_uri_weakness(const mongoc_uri_t *uri);
/* "db1:27017,db2:27017", sorted, and the replica set if one is named: which deployment it is,
 * without user and password. The string was checked. Free with g_free. */
char *mongo_uri_deployment(const char *uri);
/* Whether every host is this machine. */
bool mongo_uri_is_local(const mongoc_uri_t *uri);

/* Connects and identifies the deployment: a replica set or a sharded cluster; anything else cannot
 * have change streams and is FAILURE_CONFIG. The settings must outlive the store. */
MongoStore *mongo_store_open(const MongoSettings *settings, Failure *ret_failure);
/* The same for a program of one thread: all borrow the same client, and neither opening nor closing
 * waits for threads that watch the servers. */
MongoStore *mongo_store_open_single(const MongoSettings *settings, Failure *ret_failure);
void mongo_store_close(MongoStore *store);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MongoStore, mongo_store_close)

const MongoSettings *mongo_store_settings(const MongoStore *store);
/* "MongoDB 8.2.0, replica set rs0" */
const char *mongo_store_server(const MongoStore *store);

bool mongo_store_is_sharded(const MongoStore *store);

/* A client for one thread; give it back with mongo_store_return. */
mongoc_client_t *mongo_store_borrow(MongoStore *store);
void mongo_store_return(MongoStore *store, mongoc_client_t *client);

/* The collection's entry in listCollections; NULL: it does not exist, or the failure says why not.
 * A user who may not list everything (`*ret_may` false) sees only the name and type of what it may
 * use, when it asks for a `brief` one. Free with bson_destroy. */
bson_t *mongo_find_collection(mongoc_client_t *client, const char *database, const char *name,
                              bool brief, bool *ret_may, Failure *ret_failure);

/* How many documents the collection has, by its metadata; 0: it does not exist. */
bool mongo_estimate(MongoStore *store, const char *collection, int64_t *ret_count,
                    Failure *ret_failure);

/* Adds {"collation": simple}: whatever a collection's own collation, texts are equal when their
 * bytes are. Belongs in the options, or the command, of everything that filters. */
void mongo_append_simple(bson_t *options);

/* What a driver error means. `reply` may be NULL; its error labels count. Returns false. */
bool mongo_fail(const bson_error_t *error, const bson_t *reply, Failure *ret_failure);
