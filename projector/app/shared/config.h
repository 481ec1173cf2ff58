/* config.h - the mapping file as a whole: stores, settings and projections. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mongo/store.h"
#include "projector/infra/mysql/session.h"

typedef struct Settings {
  int64_t workers;           /* threads that apply, each with its own MySQL connection */
  int64_t batch;             /* most events in one MySQL transaction */
  int64_t linger_ms;         /* wait that long for a fuller batch */
  int64_t max_attempts;      /* then an event is dead */
  int64_t backoff_ms;        /* before the second attempt; doubles */
  int64_t claim_timeout_ms;  /* the sweeper takes back older claims, and those as far ahead */
  int64_t claim_mark_ms;     /* an event not committed by then is marked in its own document */
  int64_t sweep_interval_ms; /* how often it looks */
  int64_t lease_ms;          /* a silent owner loses its lease after this */
  int64_t gap_wait_ms;       /* for a missing version */
  int64_t future_ms;         /* an event whose time is further ahead than that waits */
  int64_t memory_mb;         /* bound with small events; see Sizing in docs/operations.md */
  int64_t max_events_per_s;  /* of all workers; 0: no limit */
  int64_t max_replica_lag_s; /* of a replica, before nothing is applied; 0: it is not asked */
  bool ignore_unreachable_replicas;
  int64_t max_blocked; /* aggregates with failed events before an alarm is raised */
  int64_t ledger_retention_s;
  int64_t ready_lag_ms;   /* from this lag on /readyz says no */
  bool permanent_is_dead; /* an event that can never succeed dies at its first failure */
  bool adopt;             /* `run --adopt`: continue with stores that were restored or moved */
  bool log_json;
  const char *http;        /* "host:port" */
  bool http_asked_for;     /* by the mapping file; else it is the default */
  const char *admin_token; /* NULL: no actions over HTTP */
} Settings;

typedef struct Config {
  const char *name;
  MongoSettings mongodb;
  MysqlSettings mysql;
  Settings settings;
  Mapping *mapping;
  char mapping_digest[65]; /* of the projections as they stand in the file; changes with them */
  GPtrArray *warnings;     /* of char *: worth a line in the log */
  GPtrArray *secret_files;
  GPtrArray *replicas; /* of "host:port", of MySQL; may be empty */
  char *file;          /* that all this was read from */
  GPtrArray *feeds;    /* behind mongodb.feeds; NULL: none */
  void *json;          /* json_t that owns the texts */
} Config;

/* Reads the file, substitutes the environment, reads secret files and checks everything. The
 * failure names the path of the key. */
Config *config_load(const char *file, Failure *ret_failure);
/* The projections alone, for what needs no store: settings and secrets are not looked at, and their
 * environment variables need not be set. */
Config *config_load_mapping(const char *file, Failure *ret_failure);
void config_free(Config *config);
/* Whether the content of a secret file has changed since it was read. */
bool config_secrets_have_changed(const Config *config);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Config, config_free)
