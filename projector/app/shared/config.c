/* config.c - reads the mapping file: ${NAME} from the environment, secrets from files, settings. */
#include "projector/app/shared/config.h"

#include "projector/domain/json.h"
#include "projector/domain/json_number.h"
#include "projector/infra/http/server.h"
#include "projector/infra/mongo/feeds.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct NumberSetting {
  const char *key;
  int64_t low, high, initial;
  size_t offset;
} NumberSetting;

static const NumberSetting numbers[] = {
    {"workers", 1, 64, 2, offsetof(Settings, workers)},
    {"batch", 1, 10000, 500, offsetof(Settings, batch)},
    {"linger_ms", 0, 60000, 0, offsetof(Settings, linger_ms)},
    {"max_attempts", 1, 1000, 10, offsetof(Settings, max_attempts)},
    {"backoff_ms", 1, 300000, 1000, offsetof(Settings, backoff_ms)},
    {"claim_timeout_ms", 1000, 86400000, 60000, offsetof(Settings, claim_timeout_ms)},
    {"claim_mark_ms", 100, 86400000, 1000, offsetof(Settings, claim_mark_ms)},
    {"sweep_interval_ms", 100, 86400000, 30000, offsetof(Settings, sweep_interval_ms)},
    {"lease_ms", 1000, 600000, 10000, offsetof(Settings, lease_ms)},
    {"gap_wait_ms", 0, 600000, 2000, offsetof(Settings, gap_wait_ms)},
    {"future_ms", 0, 253402300800000, 86400000, offsetof(Settings, future_ms)},
    {"memory_mb", 16, 65536, 64, offsetof(Settings, memory_mb)},
    {"max_events_per_s", 0, 10000000, 0, offsetof(Settings, max_events_per_s)},
    {"max_replica_lag_s", 0, 86400, 0, offsetof(Settings, max_replica_lag_s)},
    {"max_blocked", 1, 10000000, 10000, offsetof(Settings, max_blocked)},
    {"ready_lag_ms", 1, 86400000, 60000, offsetof(Settings, ready_lag_ms)},
    {"ledger_retention", 60, 3153600000, 7 * 86400, offsetof(Settings, ledger_retention_s)},
};

/* The targets are of type unsigned. */
static const NumberSetting mysql_numbers[] = {
    {"port", 1, 65535, 3306, offsetof(MysqlSettings, port)},
    {"lock_wait_s", 1, 600, 10, offsetof(MysqlSettings, lock_wait_s)},
};

enum { REPLICAS_MAX = 16, TOKEN_MIN = 16 };

static bool wrong(Failure *ret_failure, const char *path, const char *what) {
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s: %s", path, what);
}

/* --- ${NAME} and *_file --------------------------------------------------------------------- */

static char *substitute(const char *text, const char *path, Failure *ret_failure) {
  g_autoptr(GString) out = g_string_new(NULL);
  for (const char *at = text; *at;) {
    const char *end = at[0] == '$' && at[1] == '{' ? strchr(at, '}') : NULL;
    if (!end) {
      g_string_append_c(out, *at++);
      continue;
    }
    g_autofree char *name = g_strndup(at + 2, (gsize)(end - at - 2));
    const char *value = g_getenv(name);
    if (!value) {
      failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                  "%s: the environment variable %.80s is not set", path, name);
      return NULL;
    }
    g_string_append(out, value);
    at = end + 1;
  }
  return g_string_free(g_steal_pointer(&out), FALSE);
}

/* JSON numbers have no quotes, so one from the environment is a string until here. */
static json_t *as_number(const char *key, const char *text) {
  bool number_key = false;
  for (size_t i = 0; i < G_N_ELEMENTS(mysql_numbers); i++)
    number_key |= !strcmp(key, mysql_numbers[i].key);
  for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
    number_key |= !strcmp(key, numbers[i].key);
  gint64 number;
  return number_key && g_ascii_string_to_signed(text, 10, 0, G_MAXINT64, &number, NULL)
             ? json_integer(number)
             : NULL;
}

static bool fill_in(json_t *value, const char *path, Failure *ret_failure);

static bool fill_in_member(json_t *value, const char *key, const char *path, json_t **ret_new,
                           Failure *ret_failure) {
  *ret_new = NULL;
  if (!json_is_string(value))
    return fill_in(value, path, ret_failure);
  const char *text = json_string_value(value);
  if (!strstr(text, "${"))
    return true;
  g_autofree char *filled = substitute(text, path, ret_failure);
  if (!filled)
    return false;
  *ret_new = as_number(key, filled);
  if (!*ret_new)
    *ret_new = json_string(filled);
  return *ret_new || wrong(ret_failure, path, "expected UTF-8 from the environment");
}

static bool fill_in(json_t *value, const char *path, Failure *ret_failure) {
  const char *key;
  json_t *member, *filled;
  void *next;
  size_t i;
  json_object_foreach_safe(value, next, key, member) {
    g_autofree char *full = json_path(path, key);
    if (!fill_in_member(member, key, full, &filled, ret_failure))
      return false;
    if (filled)
      json_object_set_new(value, key, filled);
  }
  json_array_foreach(value, i, member) {
    g_autofree char *full = g_strdup_printf("%s[%zu]", path, i);
    if (!fill_in_member(member, "", full, &filled, ret_failure))
      return false;
    if (filled)
      json_array_set_new(value, i, filled);
  }
  return true;
}

/* One key of an object, or nothing if it is absent. */
static bool fill_in_key(json_t *object, const char *path, const char *key, Failure *ret_failure) {
  json_t *filled = NULL;
  g_autofree char *full = json_path(path, key);
  if (!fill_in_member(json_object_get(object, key), key, full, &filled, ret_failure))
    return false;
  if (filled)
    json_object_set_new(object, key, filled);
  return true;
}

/* What a secret file contained when it was read. */
typedef struct SecretFile {
  char *path, *text;
} SecretFile;

static void secret_file_free(gpointer data) {
  SecretFile *file = data;
  g_free(file->path);
  g_free(file->text);
  g_free(file);
}

static char *read_first_line(const char *file, GError **ret_error) {
  char *text = NULL;
  if (g_file_get_contents(file, &text, NULL, ret_error))
    text[strcspn(text, "\r\n")] = '\0';
  return text;
}

static char *read_secret(Config *config, const char *file, const char *path, Failure *ret_failure) {
  g_autoptr(GError) error = NULL;
  struct stat status;
  char *text = read_first_line(file, &error);
  if (!text) {
    wrong(ret_failure, path, error->message);
    return NULL;
  }
  if (stat(file, &status) == 0 && (status.st_mode & S_IRWXO))
    g_ptr_array_add(config->warnings,
                    g_strdup_printf("%s: %s can be read by every user", path, file));
  SecretFile *read = g_new(SecretFile, 1);
  *read = (SecretFile){g_strdup(file), g_strdup(text)};
  g_ptr_array_add(config->secret_files, read);
  return text;
}

bool config_secrets_have_changed(const Config *config) {
  for (guint i = 0; i < config->secret_files->len; i++) {
    const SecretFile *file = config->secret_files->pdata[i];
    g_autofree char *text = read_first_line(file->path, NULL);
    if (text && strcmp(text, file->text) != 0)
      return true;
  }
  return false;
}

/* Takes the secret `key`, in place or from the file named by "<key>_file". */
static bool take_secret(Config *config, json_t *object, const char *path, const char *key,
                        const char **ret_text, Failure *ret_failure) {
  g_autofree char *file_key = g_strdup_printf("%s_file", key);
  g_autofree char *file_path = json_path(path, file_key);
  const char *file = NULL;
  if (!json_take_text(object, path, file_key, false, &file, ret_failure))
    return false;
  if (file && json_object_get(object, key))
    return wrong(ret_failure, file_path, "the secret itself is given too; keep only one of them");
  if (file) {
    g_autofree char *secret = read_secret(config, file, file_path, ret_failure);
    if (!secret)
      return false;
    if (json_object_set_new(object, key, json_string(secret)))
      return wrong(ret_failure, file_path, "expected a file in UTF-8");
  }
  return json_take_text(object, path, key, false, ret_text, ret_failure);
}

/* --- sections ------------------------------------------------------------------------------- */

static bool is_name(const char *text) {
  size_t length = strlen(text);
  for (size_t i = 0; i < length; i++)
    if (!g_ascii_isalnum(text[i]) && !strchr("-_.", text[i]))
      return false;
  return length >= 1 && length <= 64;
}

static bool need(const char *value, const char *path, Failure *ret_failure) {
  return (value && *value) || wrong(ret_failure, path, "expected a string, found nothing");
}

static void warn(Config *config, const char *weakness) {
  if (weakness)
    g_ptr_array_add(config->warnings, g_strdup(weakness));
}

static bool is_mongodb_database(const char *name) {
  return *name && strlen(name) < 64 && !strpbrk(name, "/\\. \"$");
}

/* One of the projector's own collections: as an outbox, it would hold documents that are not
 * events. */
static bool is_own_collection(const char *outbox, const char *name) {
  static const char *const suffixes[] = {"", "_archive", "_deleted", "_commands"};
  for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
    g_autofree char *own = g_strconcat(outbox, suffixes[i], NULL);
    if (!strcmp(own, name))
      return true;
  }
  return g_str_has_prefix(name, "projector_");
}

static bool take_feed(const Config *config, const json_t *list, const char *name,
                      const GPtrArray *others, Failure *ret_failure) {
  if (is_own_collection(config->mongodb.outbox, name))
    return json_complain(
        "mongodb.feeds",
        "collections other than the outbox and its own, none that begins with projector_", list,
        ret_failure);
  for (guint i = 0; i < others->len; i++)
    if (!strcmp(others->pdata[i], name))
      return json_complain("mongodb.feeds", "each feed once", list, ret_failure);
  return true;
}

static bool take_feeds(Config *config, const json_t *json, Failure *ret_failure) {
  json_t *list = json_object_get(json, "feeds"), *name;
  size_t i;
  if (!list)
    return true;
  if (!json_is_array(list) || json_array_size(list) > FEEDS_MAX)
    return json_complain("mongodb.feeds", "an array of at most 16 collections", list, ret_failure);
  config->feeds = g_ptr_array_new();
  json_array_foreach(list, i, name) {
    const char *text = NULL;
    json_t *one = json_pack("{s:O}", "feeds", name);
    bool good = json_take_collection(one, "mongodb", "feeds", &text, ret_failure);
    json_decref(one);
    if (!good || !take_feed(config, list, text, config->feeds, ret_failure))
      return false;
    g_ptr_array_add(config->feeds, (gpointer)text);
  }
  g_ptr_array_add(config->feeds, NULL);
  config->mongodb.feeds = (const char *const *)config->feeds->pdata;
  return true;
}

static bool parse_mongodb(Config *config, json_t *root, Failure *ret_failure) {
  static const char *const retains[] = {"delete", "archive", NULL};
  static const char path[] = "mongodb";
  json_t *json = json_object_get(root, path);
  int retain = 0;
  config->mongodb.outbox = "outbox";
  if (!json)
    return json_complain(path, "an object", NULL, ret_failure);
  if (!take_secret(config, json, path, "uri", &config->mongodb.uri, ret_failure) ||
      !json_take_text(json, path, "database", true, &config->mongodb.database, ret_failure) ||
      !json_take_collection(json, path, "outbox", &config->mongodb.outbox, ret_failure) ||
      !json_take_choice(json, path, "retain", retains, &retain, ret_failure) ||
      !event_fields_parse(json, &config->mongodb.fields, ret_failure))
    return false;
  config->mongodb.archive = retain == 1;
  if (!take_feeds(config, json, ret_failure))
    return false;
  const char *weakness = NULL;
  if (!need(config->mongodb.uri, "mongodb.uri", ret_failure) ||
      !mongo_uri_check(config->mongodb.uri, &weakness, ret_failure))
    return false;
  warn(config, weakness);
  return is_mongodb_database(config->mongodb.database) ||
         json_complain("mongodb.database", "1 to 63 bytes without / \\ . \" $ and blanks",
                       json_object_get(json, "database"), ret_failure);
}

static bool take_mysql_numbers(MysqlSettings *mysql, const json_t *json, Failure *ret_failure) {
  for (size_t i = 0; i < G_N_ELEMENTS(mysql_numbers); i++) {
    const NumberSetting *setting = &mysql_numbers[i];
    int64_t number = setting->initial;
    if (!json_take_number(json, "mysql", setting->key, setting->low, setting->high, &number,
                          ret_failure))
      return false;
    *(unsigned *)(void *)((char *)mysql + setting->offset) = (unsigned)number;
  }
  return true;
}

/* "mysql.replicas": where they listen; the user is the same. */
static bool take_replicas(Config *config, const json_t *json, Failure *ret_failure) {
  static const char path[] = "mysql.replicas", expected[] = "an array of at most 16 HOST:PORT";
  json_t *list = json_object_get(json, "replicas"), *one;
  size_t i;
  config->replicas = g_ptr_array_new();
  if (list && (!json_is_array(list) || json_array_size(list) > REPLICAS_MAX))
    return json_complain(path, expected, list, ret_failure);
  json_array_foreach(list, i, one) {
    const char *text = json_string_value(one);
    if (!text || !http_address_is_valid(text))
      return json_complain(path, expected, one, ret_failure);
    g_ptr_array_add(config->replicas, (gpointer)text);
  }
  return true;
}

static bool parse_mysql(Config *config, json_t *root, Failure *ret_failure) {
  static const char *const keys[] = {
      "host", "port",   "user",        "password", "password_file",       "database", "socket",
      "tls",  "tls_ca", "lock_wait_s", "replicas", "replica_unreachable", NULL};
  static const char *const modes[] = {"off", "verify", "insecure", NULL};
  static const char *const unreachable[] = {"lag", "ignore", NULL};
  int ignore = 0;
  static const char path[] = "mysql";
  json_t *json = json_object_get(root, path);
  MysqlSettings *mysql = &config->mysql;
  int mode = -1;
  mysql->host = "127.0.0.1";
  mysql->password = "";
  if (!json_check_object(json, path, keys, ret_failure) ||
      !json_take_text(json, path, "host", false, &mysql->host, ret_failure) ||
      !take_mysql_numbers(mysql, json, ret_failure) ||
      !json_take_text(json, path, "user", true, &mysql->user, ret_failure) ||
      !take_secret(config, json, path, "password", &mysql->password, ret_failure) ||
      !json_take_text(json, path, "database", true, &mysql->database, ret_failure) ||
      !json_take_text(json, path, "socket", false, &mysql->socket, ret_failure) ||
      !json_take_choice(json, path, "tls", modes, &mode, ret_failure) ||
      !json_take_text(json, path, "tls_ca", false, &mysql->tls_ca, ret_failure) ||
      !json_take_choice(json, path, "replica_unreachable", unreachable, &ignore, ret_failure) ||
      !take_replicas(config, json, ret_failure))
    return false;
  config->settings.ignore_unreachable_replicas = ignore == 1;
  mysql->tls = mode >= 0 ? (TlsMode)mode : mysql_is_local(mysql) ? TLS_OFF : TLS_VERIFY;
  warn(config, mysql_weakness(mysql));
  if (mysql->tls_ca && access(mysql->tls_ca, R_OK))
    return failure_refuse(ret_failure, "mysql.tls_ca: %s: %s", mysql->tls_ca, g_strerror(errno));
  return need(mysql->database, "mysql.database", ret_failure);
}

static bool parse_settings(Config *config, json_t *root, Failure *ret_failure) {
  static const char *const permanents[] = {"retry", "dead", NULL};
  static const char *const logs[] = {"text", "json", NULL};
  int permanent = 0, log = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
    int64_t *target = (int64_t *)(void *)((char *)&config->settings + numbers[i].offset);
    *target = numbers[i].initial;
    if (!json_take_number(root, "", numbers[i].key, numbers[i].low, numbers[i].high, target,
                          ret_failure))
      return false;
  }
  config->settings.http = "127.0.0.1:9464";
  config->settings.http_asked_for = json_object_get(root, "http") != NULL;
  if (!json_take_choice(root, "", "permanent", permanents, &permanent, ret_failure) ||
      !json_take_choice(root, "", "log", logs, &log, ret_failure) ||
      !json_take_text(root, "", "http", false, &config->settings.http, ret_failure) ||
      !take_secret(config, root, "", "admin_token", &config->settings.admin_token, ret_failure))
    return false;
  if (*config->settings.http && !http_address_is_valid(config->settings.http))
    return json_complain("http", "HOST:PORT, as in 127.0.0.1:9464, or \"\" for none",
                         json_object_get(root, "http"), ret_failure);
  const char *token = config->settings.admin_token;
  if (token && strlen(token) < TOKEN_MIN)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "admin_token_file: expected a token of at least %d characters", TOKEN_MIN);
  config->settings.permanent_is_dead = permanent == 1;
  config->settings.log_json = log == 1;
  return true;
}

/* A collection of events cannot be one of entities, and the other way round. */
static bool check_entities(const Config *config, Failure *ret_failure) {
  g_autofree char *archive = mongo_archive_name(config->mongodb.outbox);
  for (unsigned i = 0; i < mapping_projection_count(config->mapping); i++) {
    const char *entities = mapping_projection(config->mapping, i)->entities;
    for (guint k = 0; entities && config->feeds && k + 1 < config->feeds->len; k++)
      if (!strcmp(entities, config->feeds->pdata[k]))
        return failure_refuse(ret_failure, "projections[%u].entities: %s is a feed", i, entities);
    if (entities && (!strcmp(entities, config->mongodb.outbox) || !strcmp(entities, archive)))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "projections[%u].entities: %s is the outbox%s", i, entities,
                         strcmp(entities, archive) ? "" : "'s archive");
  }
  return true;
}

/* Without replicas nobody could be asked. */
static bool check_replicas(const Config *config, Failure *ret_failure) {
  return config->settings.max_replica_lag_s == 0 || config->replicas->len > 0 ||
         wrong(ret_failure, "max_replica_lag_s", "expected the replicas in mysql.replicas");
}

/* Of the file and of `mongodb`, which has members that the mapping needs: no value is looked at. */
static bool check_keys(json_t *root, Failure *ret_failure) {
  static const char *const others[] = {
      "$schema", "name",           "mongodb",   "mysql",       "projections",     "log",
      "http",    "unknown_events", "permanent", "admin_token", "admin_token_file"};
  static const char *const mongodb_keys[] = {"uri",   "uri_file", "database", "outbox", "retain",
                                             "feeds", "layout",   "fields",   NULL};
  json_t *mongodb = json_object_get(root, "mongodb");
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  for (size_t i = 0; i < G_N_ELEMENTS(others); i++)
    g_ptr_array_add(keys, (gpointer)others[i]);
  for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
    g_ptr_array_add(keys, (gpointer)numbers[i].key);
  g_ptr_array_add(keys, NULL);
  return json_check_object(root, "", (const char *const *)keys->pdata, ret_failure) &&
         (!mongodb || json_check_object(mongodb, "mongodb", mongodb_keys, ret_failure));
}

static bool parse_root(Config *config, json_t *root, Failure *ret_failure) {
  if (!check_keys(root, ret_failure) || !fill_in(root, "", ret_failure) ||
      !json_take_text(root, "", "name", true, &config->name, ret_failure))
    return false;
  if (!is_name(config->name))
    return json_complain("name", "1 to 64 letters, digits, - _ or .", json_object_get(root, "name"),
                         ret_failure);
  if (!parse_mongodb(config, root, ret_failure) || !parse_mysql(config, root, ret_failure) ||
      !parse_settings(config, root, ret_failure))
    return false;
  config->mapping = mapping_parse(root, ret_failure);
  return config->mapping && check_entities(config, ret_failure) &&
         check_replicas(config, ret_failure);
}

static void digest_mapping(Config *config) {
  char *text =
      json_dumps(json_object_get(config->json, "projections"), JSON_COMPACT | JSON_SORT_KEYS);
  g_autofree char *digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
  g_strlcpy(config->mapping_digest, digest, sizeof config->mapping_digest);
  free(text);
}

static Config *read_file(const char *file, Failure *ret_failure) {
  g_autoptr(Config) config = g_new0(Config, 1);
  g_autoptr(GError) read_error = NULL;
  g_autofree char *text = NULL;
  size_t length;
  config->warnings = g_ptr_array_new_with_free_func(g_free);
  config->secret_files = g_ptr_array_new_with_free_func(secret_file_free);
  if (!g_file_get_contents(file, &text, &length, &read_error)) {
    wrong(ret_failure, file, read_error->message);
    return NULL;
  }
  /* some editors put a byte order mark at the start */
  size_t mark = g_str_has_prefix(text, "\xEF\xBB\xBF") ? 3 : 0;
  json_error_t error;
  /* a constant keeps all its digits */
  g_autoptr(GString) exact = json_wide_as_decimals(text + mark, length - mark);
  if (!exact) {
    wrong(ret_failure, file,
          "a number has more than 34 digits, which are not kept exactly: write it as a text");
    return NULL;
  }
  config->json = json_loadb(exact->str, exact->len, JSON_REJECT_DUPLICATES, &error);
  if (!config->json) {
    char *near = strstr(error.text, " near '"); /* then it quotes the file */
    if (near)
      *near = '\0';
    failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s:%d:%d: not valid JSON: %s",
                file, error.line, error.column, error.text);
    return NULL;
  }
  return g_steal_pointer(&config);
}

Config *config_load(const char *file, Failure *ret_failure) {
  g_autoptr(Config) config = read_file(file, ret_failure);
  if (!config)
    return NULL;
  config->file = g_strdup(file);
  if (!parse_root(config, config->json, ret_failure)) {
    failure_prefix(ret_failure, "%s", file);
    return NULL;
  }
  digest_mapping(config);
  return g_steal_pointer(&config);
}

Config *config_load_mapping(const char *file, Failure *ret_failure) {
  g_autoptr(Config) config = read_file(file, ret_failure);
  if (!config)
    return NULL;
  json_t *mongodb = json_object_get(config->json, "mongodb");
  if (check_keys(config->json, ret_failure) &&
      fill_in_key(mongodb, "mongodb", "layout", ret_failure) &&
      fill_in_key(mongodb, "mongodb", "fields", ret_failure) &&
      fill_in_key(config->json, "", "unknown_events", ret_failure) &&
      fill_in_key(config->json, "", "projections", ret_failure) &&
      event_fields_parse(mongodb, &config->mongodb.fields, ret_failure))
    config->mapping = mapping_parse(config->json, ret_failure);
  if (!config->mapping) {
    failure_prefix(ret_failure, "%s", file);
    return NULL;
  }
  return g_steal_pointer(&config);
}

void config_free(Config *config) {
  if (!config)
    return;
  mapping_free(config->mapping);
  json_decref(config->json);
  g_ptr_array_unref(config->warnings);
  g_ptr_array_unref(config->secret_files);
  if (config->replicas)
    g_ptr_array_unref(config->replicas);
  g_free(config->file);
  if (config->feeds)
    g_ptr_array_unref(config->feeds);
  g_free(config);
}
