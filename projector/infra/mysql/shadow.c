/* shadow.c - statements on t__new, t__copied and t__old. */
#include "projector/infra/mysql/shadow.h"

#include "projector/infra/crash.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

enum {
  NAME_MAX_BYTES = 64,
  LOCK_TRIES = 6,
  LOOK_MS = 2, /* between two checks of the waiting RENAME */
  LOOKS_MAX = 5000,
  RESERVE_WAIT_S = 2,     /* the server may still be ending the sessions of one that was killed */
  RENAMER_IDLES_S = 3600, /* woken more often; the reservation of a process that is gone ends */
  TABLE_EXISTS = 1050,    /* what a RENAME is told as long as the placeholder is there */
};

static const char replay[] = "replay", rebuild[] = "rebuild --shadow";

/* Tells a placeholder from a table that the user may want back. */
#define PLACEHOLDER "placeholder of projector rebuild"

static bool check_length(const char *table, const char *longest, Failure *ret_failure) {
  return strlen(longest) <= NAME_MAX_BYTES ||
         failure_refuse(ret_failure, "%s: the name is too long to build %s beside it", table,
                        longest);
}

static bool name_children(const Projection *projection, const char *suffix, Shadow *shadow,
                          Failure *ret_failure) {
  shadow->child_count = projection->child_count;
  for (unsigned i = 0; i < projection->child_count; i++) {
    ShadowChild *child = &shadow->children[i];
    child->table = projection->children[i]->table;
    g_snprintf(child->fresh, sizeof child->fresh, "%s%s", child->table, suffix);
    g_snprintf(child->old, sizeof child->old, "%s__old", child->table);
    if (!check_length(child->table, child->fresh, ret_failure))
      return false;
  }
  return true;
}

bool shadow_name(const Projection *projection, Shadow *ret_shadow, Failure *ret_failure) {
  const char *table = projection->table;
  *ret_shadow = (Shadow){.command = rebuild, .table = table};
  g_snprintf(ret_shadow->fresh, sizeof ret_shadow->fresh, "%s__new", table);
  g_snprintf(ret_shadow->copied, sizeof ret_shadow->copied, "%s__copied", table);
  g_snprintf(ret_shadow->old, sizeof ret_shadow->old, "%s__old", table);
  return check_length(table, ret_shadow->copied, ret_failure) &&
         name_children(projection, "__new", ret_shadow, ret_failure);
}

bool shadow_name_replay(const Projection *projection, Shadow *ret_shadow, Failure *ret_failure) {
  const char *table = projection->table;
  *ret_shadow = (Shadow){.command = replay, .table = table};
  g_snprintf(ret_shadow->fresh, sizeof ret_shadow->fresh, "%s__replay", table);
  g_snprintf(ret_shadow->old, sizeof ret_shadow->old, "%s__old", table);
  return check_length(table, ret_shadow->fresh, ret_failure) &&
         name_children(projection, "__replay", ret_shadow, ret_failure);
}

/* --- looking -------------------------------------------------------------------------------- */

/* Names come from the checked mapping file, and contain only letters, digits, _ and $. */
static char *comment_of(Session *session, const char *name, Failure *ret_failure) {
  return session_ask(session, ret_failure,
                     "SELECT TABLE_COMMENT FROM information_schema.TABLES"
                     " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '%s'",
                     name);
}

bool shadow_table_exists(Session *session, const char *name, bool *ret_exists,
                         Failure *ret_failure) {
  g_autofree char *comment = comment_of(session, name, ret_failure);
  *ret_exists = comment != NULL;
  return comment || ret_failure->class == FAILURE_NONE;
}

/* A RENAME asks for its tables one by one, in the order of their names. The placeholder is the last
 * t__old: it sorts behind every table in use. */
static const char *placeholder_of(const Shadow *shadow) {
  const char *last = shadow->old;
  for (unsigned i = 0; i < shadow->child_count; i++)
    if (strcmp(shadow->children[i].old, last) > 0)
      last = shadow->children[i].old;
  return last;
}

/* The table in use that a RENAME asks for last. */
static const char *last_of(const Shadow *shadow) {
  const char *last = shadow->table;
  for (unsigned i = 0; i < shadow->child_count; i++)
    if (strcmp(shadow->children[i].table, last) > 0)
      last = shadow->children[i].table;
  return last;
}

static bool drop_placeholder(Session *session, const char *old, bool *ret_real,
                             Failure *ret_failure) {
  g_autofree char *comment = comment_of(session, old, ret_failure);
  *ret_real = comment && strcmp(comment, PLACEHOLDER) != 0;
  if (!comment || *ret_real)
    return ret_failure->class == FAILURE_NONE;
  return session_run(session, ret_failure, "DROP TABLE IF EXISTS `%s`", old);
}

static bool refuse_old(const char *old, Failure *ret_failure) {
  return failure_refuse(
      ret_failure,
      "%s exists, from an earlier rebuild or replay: drop it when it is not needed, or use "
      "--drop-old",
      old);
}

static bool check_one_old(Session *session, const char *old, bool drop_old, Failure *ret_failure) {
  bool real;
  return drop_placeholder(session, old, &real, ret_failure) &&
         (!real || drop_old || refuse_old(old, ret_failure));
}

static bool check_old(Session *session, const Shadow *shadow, bool drop_old, Failure *ret_failure) {
  for (unsigned i = 0; i < shadow->child_count; i++)
    if (!check_one_old(session, shadow->children[i].old, drop_old, ret_failure))
      return false;
  return check_one_old(session, shadow->old, drop_old, ret_failure);
}

/* The name of a lock that the session keeps. The names of tables have no slash. */
static char *lock_name(const Shadow *shadow, const char *suffix) {
  return g_strdup_printf("SHA2(CONCAT(DATABASE(), '/%s%s'), 256)", shadow->table, suffix);
}

/* The former session of this command may be one that only the server still has, because something
 * on the way dropped its connection. It is ended by its number, if it has the lock. */
static bool end_former(Session *session, const char *name, unsigned long former,
                       Failure *ret_failure) {
  if (former == 0)
    return true;
  g_autofree char *holder = session_ask(session, ret_failure, "SELECT IS_USED_LOCK(%s)", name);
  Failure ended = {0}; /* by itself, meanwhile */
  if (holder && strtoul(holder, NULL, 10) == former)
    session_run(session, &ended, "KILL %lu", former);
  return holder != NULL;
}

/* `*ret_holder`: the connection that has the lock; NULL: this one. */
static bool take_lock(Session *session, const Shadow *shadow, const char *suffix,
                      unsigned long former, char **ret_holder, Failure *ret_failure) {
  g_autofree char *name = lock_name(shadow, suffix);
  if (!end_former(session, name, former, ret_failure))
    return false;
  for (int tries = 0; tries < 2; tries++) {
    g_autofree char *got =
        session_ask(session, ret_failure, "SELECT GET_LOCK(%s, %d)", name, RESERVE_WAIT_S);
    if (!got || *got == '1')
      return got != NULL;
    g_autofree char *holder =
        session_ask(session, ret_failure, "SELECT COALESCE(IS_USED_LOCK(%s), 0)", name);
    if (!holder)
      return false;
    if (strcmp(holder, "0") != 0 || tries > 0) { /* else it has just ended */
      *ret_holder = g_steal_pointer(&holder);
      return true;
    }
  }
  return true;
}

static bool refuse_second(const Shadow *shadow, const char *which, const char *holder,
                          Failure *ret_failure) {
  return failure_refuse(ret_failure,
                        "%s of %s is running, on MySQL's connection %s (KILL it, if its process is "
                        "gone)",
                        which, shadow->table, holder);
}

/* Two locks: by the first, each command meets its like; by the second, replay and rebuild meet. */
static bool reserve(Session *session, const Shadow *shadow, unsigned long former,
                    Failure *ret_failure) {
  g_autofree char *own = g_strdup_printf("/%s", shadow->command), *holder = NULL;
  const char *other = shadow->command == replay ? rebuild : replay;
  g_autofree char *like = g_strdup_printf("another %s", shadow->command),
                  *unlike = g_strdup_printf("a %s", other);
  if (!take_lock(session, shadow, own, former, &holder, ret_failure))
    return false;
  if (holder)
    return refuse_second(shadow, like, holder, ret_failure);
  return take_lock(session, shadow, "", former, &holder, ret_failure) &&
         (!holder || refuse_second(shadow, unlike, holder, ret_failure));
}

/* `former`: the number of the session that it replaces; 0: none. */
static Session *open_renamer(const MysqlSettings *settings, const Shadow *shadow,
                             unsigned long former, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(settings, ret_failure);
  return session &&
                 session_run(session, ret_failure, "SET SESSION wait_timeout = %d",
                             RENAMER_IDLES_S) &&
                 reserve(session, shadow, former, ret_failure)
             ? g_steal_pointer(&session)
             : NULL;
}

Session *shadow_open_renamer(const MysqlSettings *settings, const Shadow *shadow,
                             Failure *ret_failure) {
  return open_renamer(settings, shadow, 0, ret_failure);
}

bool shadow_keep_reserved(Session **renamer, const MysqlSettings *settings, const Shadow *shadow,
                          Failure *ret_failure) {
  Failure broken = {0};
  if (session_run(*renamer, &broken, "DO 0"))
    return true;
  unsigned long former = session_id(*renamer);
  session_close(*renamer);
  *renamer = open_renamer(settings, shadow, former, ret_failure);
  return *renamer != NULL;
}

bool shadow_drop_old(Session *session, const Shadow *shadow, Failure *ret_failure) {
  for (unsigned i = 0; i < shadow->child_count; i++)
    if (!session_run(session, ret_failure, "DROP TABLE IF EXISTS `%s`", shadow->children[i].old))
      return false;
  return session_run(session, ret_failure, "DROP TABLE IF EXISTS `%s`", shadow->old);
}

/* Whether no row of a view of information_schema names the table in one of these columns. */
static bool check_none(Session *session, const char *table, const char *view, const char *name,
                       const char *schema, const char *columns, Failure *ret_failure) {
  g_autofree char *found = session_ask(session, ret_failure,
                                       "SELECT %s FROM information_schema.%s WHERE %s = DATABASE()"
                                       " AND '%s' IN (%s)",
                                       name, view, schema, table, columns);
  return found ? failure_refuse(
                     ret_failure,
                     "%s is part of %s, which a swap would leave with the old table; `rebuild` "
                     "without --shadow fills the table in place",
                     table, found)
               : ret_failure->class == FAILURE_NONE;
}

static bool check_table(Session *session, const char *table, Failure *ret_failure) {
  static const char keys[] = "REFERENTIAL_CONSTRAINTS",
                    name[] = "CONCAT('the foreign key ', CONSTRAINT_NAME)";
  return check_none(session, table, keys, name, "CONSTRAINT_SCHEMA", "TABLE_NAME", ret_failure) &&
         check_none(session, table, keys, name, "UNIQUE_CONSTRAINT_SCHEMA", "REFERENCED_TABLE_NAME",
                    ret_failure) &&
         check_none(session, table, "TRIGGERS", "CONCAT('the trigger ', TRIGGER_NAME)",
                    "EVENT_OBJECT_SCHEMA", "EVENT_OBJECT_TABLE", ret_failure);
}

bool shadow_check(Session *session, const Shadow *shadow, bool drop_old, Failure *ret_failure) {
  for (unsigned i = 0; i < shadow->child_count; i++)
    if (!check_table(session, shadow->children[i].table, ret_failure))
      return false;
  return check_table(session, shadow->table, ret_failure) &&
         check_old(session, shadow, drop_old, ret_failure);
}

/* --- tables --------------------------------------------------------------------------------- */

/* The parent's table is dropped first and swapped last: while it exists, its children's do. */
bool shadow_drop(Session *session, const Shadow *shadow, Failure *ret_failure) {
  if (!session_run(session, ret_failure, "DROP TABLE IF EXISTS `%s`", shadow->fresh))
    return false;
  for (unsigned i = 0; i < shadow->child_count; i++)
    if (!session_run(session, ret_failure, "DROP TABLE IF EXISTS `%s`", shadow->children[i].fresh))
      return false;
  return !*shadow->copied ||
         session_run(session, ret_failure, "DROP TABLE IF EXISTS `%s`", shadow->copied);
}

static bool create_children(Session *session, const Shadow *shadow, Failure *ret_failure) {
  for (unsigned i = 0; i < shadow->child_count; i++)
    if (!session_run(session, ret_failure, "CREATE TABLE `%s` LIKE `%s`", shadow->children[i].fresh,
                     shadow->children[i].table))
      return false;
  return true;
}

static bool create_copied(Session *session, const Shadow *shadow, Failure *ret_failure) {
  return session_run(
      session, ret_failure,
      "CREATE TABLE `%s` (aggregate_id_kind ENUM('int', 'string', 'uuid',"
      " 'objectid') CHARACTER SET ascii COLLATE ascii_bin NOT NULL,"
      " aggregate_id VARBINARY(255) NOT NULL, version BIGINT NOT NULL,"
      " gone BOOLEAN NOT NULL, PRIMARY KEY (aggregate_id_kind, aggregate_id)) ENGINE = InnoDB",
      shadow->copied);
}

bool shadow_create(Session *session, const Shadow *shadow, Failure *ret_failure) {
  return shadow_drop(session, shadow, ret_failure) &&
         create_children(session, shadow, ret_failure) &&
         session_run(session, ret_failure, "CREATE TABLE `%s` LIKE `%s`", shadow->fresh,
                     shadow->table) &&
         (!*shadow->copied || create_copied(session, shadow, ret_failure));
}

/* --- what was copied ------------------------------------------------------------------------ */

static void append_id(GString *sql, const Id *id) {
  char text[ID_TEXT_SIZE];
  literal_append_bytes(sql, text, id_text(id, text));
}

bool shadow_note(Session *session, const Shadow *shadow, const ShadowNote *notes, size_t count,
                 Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(NULL);
  g_string_printf(sql, "REPLACE INTO `%s` VALUES ", shadow->copied);
  for (size_t i = 0; i < count; i++) {
    g_string_append_printf(sql, "%s('%s',", i ? "," : "", id_kind_name(notes[i].id.kind));
    append_id(sql, &notes[i].id);
    g_string_append_printf(sql, ",%" G_GINT64_FORMAT ",%d)", notes[i].version, notes[i].gone);
  }
  return count == 0 || session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

/* Sets the noted versions of ids of one kind. */
static bool find_noted_of_kind(Session *session, const Shadow *shadow, IdKind kind, const Id *ids,
                               size_t count, int64_t *versions, Failure *ret_failure) {
  g_autoptr(GHashTable) at = g_hash_table_new(g_str_hash, g_str_equal);
  g_autoptr(GStringChunk) texts = g_string_chunk_new(4096);
  g_autoptr(GString) sql = g_string_new(NULL);
  g_string_printf(sql,
                  "SELECT HEX(aggregate_id), version, gone FROM `%s` WHERE aggregate_id_kind = '%s'"
                  " AND aggregate_id IN (",
                  shadow->copied, id_kind_name(kind));
  for (size_t i = 0; i < count; i++) {
    if (ids[i].kind != kind)
      continue;
    char text[ID_TEXT_SIZE];
    size_t length = id_text(&ids[i], text);
    g_autoptr(GString) hex = g_string_new(NULL);
    for (size_t k = 0; k < length; k++)
      g_string_append_printf(hex, "%02X", (unsigned char)text[k]);
    g_string_append(sql, g_hash_table_size(at) ? "," : "");
    literal_append_bytes(sql, text, length);
    g_hash_table_insert(at, g_string_chunk_insert(texts, hex->str), &versions[i]);
  }
  g_string_append_c(sql, ')');
  if (g_hash_table_size(at) == 0)
    return true;
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  MYSQL_ROW row;
  while (result && (row = mysql_fetch_row(result))) {
    int64_t *version = g_hash_table_lookup(at, row[0]);
    if (version)
      *version = *row[2] == '1' ? SHADOW_GONE : g_ascii_strtoll(row[1], NULL, 10);
  }
  return result != NULL;
}

bool shadow_find_noted(Session *session, const Shadow *shadow, const Id *ids, size_t count,
                       int64_t *ret_versions, Failure *ret_failure) {
  for (size_t i = 0; i < count; i++)
    ret_versions[i] = SHADOW_NOT_COPIED;
  for (IdKind kind = 0; kind < ID_KINDS; kind++)
    if (!find_noted_of_kind(session, shadow, kind, ids, count, ret_versions, ret_failure))
      return false;
  return true;
}

PositionWalk *shadow_walk_moved(const Shadow *shadow, const char *projector,
                                const char *aggregate_type, unsigned limit) {
  g_autofree char *join =
      g_strdup_printf("LEFT JOIN `%s` c ON c.aggregate_id_kind = p.aggregate_id_kind"
                      " AND c.aggregate_id = p.aggregate_id",
                      shadow->copied);
  return position_walk_new(&(PositionQuery){
      projector, aggregate_type, join, "NOT (c.version <=> COALESCE(p.max_version, 0))", limit});
}

/* --- the swap ------------------------------------------------------------------------------- */

/* The id of no aggregate. */
static const ShadowNote mark = {.id = {.kind = ID_STRING, .bytes = (const uint8_t *)""}};

bool shadow_mark(Session *session, const Shadow *shadow, Failure *ret_failure) {
  return session_run(session, ret_failure, "START TRANSACTION") &&
         shadow_note(session, shadow, &mark, 1, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

bool shadow_was_swapped(Session *session, const Shadow *shadow, bool *ret_swapped,
                        Failure *ret_failure) {
  int64_t version;
  g_autofree char *old = comment_of(session, shadow->old, ret_failure);
  if ((!old && ret_failure->class != FAILURE_NONE) ||
      !shadow_find_noted(session, shadow, &mark.id, 1, &version, ret_failure))
    return false;
  bool marked = version != SHADOW_NOT_COPIED;
  *ret_swapped = marked && old && strcmp(old, PLACEHOLDER) != 0;
  return true;
}

static bool lock(Session *gate, const Shadow *shadow, Failure *ret_failure) {
  for (int tries = 1;; tries++) {
    *ret_failure = (Failure){0};
    if (session_run(gate, ret_failure, "LOCK TABLES projector_fence WRITE, `%s` WRITE",
                    placeholder_of(shadow)))
      return true;
    if (ret_failure->class != FAILURE_CONFLICT || tries == LOCK_TRIES)
      return false;
  }
}

bool shadow_close_gate(Session *gate, const Shadow *shadow, bool drop_old, Failure *ret_failure) {
  if (!check_old(gate, shadow, drop_old, ret_failure) ||
      (drop_old && !shadow_drop_old(gate, shadow, ret_failure)) ||
      !session_run(
          gate, ret_failure,
          "CREATE TABLE `%s` (nothing INT PRIMARY KEY) ENGINE = InnoDB COMMENT = '" PLACEHOLDER "'",
          placeholder_of(shadow)))
    return false;
  if (lock(gate, shadow, ret_failure))
    return true;
  shadow_open_gate(gate, shadow);
  return false;
}

void shadow_open_gate(Session *gate, const Shadow *shadow) {
  Failure ignored = {0};
  bool real;
  session_run(gate, &ignored, "UNLOCK TABLES");
  ignored = (Failure){0};
  drop_placeholder(gate, placeholder_of(shadow), &real, &ignored);
}

typedef enum RenameState { RENAME_IDLE, RENAME_WAITS, RENAME_WORKS } RenameState;

/* Whether the session is waiting for a table. */
static bool look_at(Session *watcher, unsigned long id, RenameState *ret_state,
                    Failure *ret_failure) {
  static const char query[] = "SHOW PROCESSLIST";
  g_autoptr(MYSQL_RES) result = session_query(watcher, query, strlen(query), ret_failure);
  MYSQL_ROW row;
  *ret_state = RENAME_IDLE;
  while (result && (row = mysql_fetch_row(result))) {
    if (!row[0] || strtoul(row[0], NULL, 10) != id)
      continue;
    bool idle = row[4] && !strcmp(row[4], "Sleep");
    bool waits = row[6] && strstr(row[6], "metadata lock");
    *ret_state = waits ? RENAME_WAITS : idle ? RENAME_IDLE : RENAME_WORKS;
  }
  return result != NULL;
}

/* Whether a statement that comes now has to wait for the table: the shortest wait there is. */
static bool is_closed(Session *watcher, const char *table, bool *ret_closed, Failure *ret_failure) {
  Failure failure = {0};
  g_autofree char *wait_s = session_ask(watcher, ret_failure, "SELECT @@SESSION.lock_wait_timeout");
  if (!wait_s || !session_run(watcher, ret_failure, "SET SESSION lock_wait_timeout = %d",
                              session_is_mariadb(watcher) ? 0 : 1))
    return false;
  g_free(session_ask(watcher, &failure, "SELECT 1 FROM `%s` LIMIT 0", table));
  *ret_closed = failure.class == FAILURE_CONFLICT;
  if (failure.class != FAILURE_NONE && !*ret_closed) {
    *ret_failure = failure;
    return false;
  }
  return session_run(watcher, ret_failure, "SET SESSION lock_wait_timeout = %s", wait_s);
}

/* Until the RENAME has asked for every table in use, and everybody else is behind it. The first
 * that it asks for is t itself, unless there are child tables: it may wait for a reader of one of
 * them, while t is open to all. */
static bool wait_until_all_wait(Session *watcher, unsigned long id, const Shadow *shadow,
                                Failure *ret_failure) {
  bool seen = false, closed = false;
  for (int looks = 0; looks < LOOKS_MAX && !closed; looks++) {
    RenameState state;
    if (!look_at(watcher, id, &state, ret_failure))
      return false;
    if (seen && state == RENAME_IDLE)
      break; /* it has failed */
    seen |= state == RENAME_WAITS;
    closed = state == RENAME_WAITS && shadow->child_count == 0;
    if (state == RENAME_WAITS && !closed &&
        !is_closed(watcher, last_of(shadow), &closed, ret_failure))
      return false;
    if (!closed)
      g_usleep(LOOK_MS * 1000);
  }
  return closed || failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_PROJECTOR, 0,
                               "the RENAME was not seen waiting for all its tables (another "
                               "session uses one of them?); nothing was swapped");
}

/* While the placeholder exists the RENAME can only fail. The placeholder is dropped when the RENAME
 * was seen waiting for its tables, with everybody else behind it, or when the RENAME has failed. */
bool shadow_swap(Session *gate, Session *renamer, Session *watcher, const Shadow *shadow,
                 Failure *ret_failure) {
  g_autoptr(GString) rename = g_string_new(NULL);
  g_string_printf(rename, "RENAME TABLE `%s` TO `%s`, `%s` TO `%s`", shadow->table, shadow->old,
                  shadow->fresh, shadow->table);
  for (unsigned i = 0; i < shadow->child_count; i++) {
    const ShadowChild *child = &shadow->children[i];
    g_string_append_printf(rename, ", `%s` TO `%s`, `%s` TO `%s`", child->table, child->old,
                           child->fresh, child->table);
  }
  if (!session_send(renamer, rename->str, ret_failure))
    return false;
  Failure failure = {0}, answer = {0}, ignored = {0};
  if (wait_until_all_wait(watcher, session_id(renamer), shadow, &failure)) {
    crash_point("swap_waiting");
    session_run(gate, &failure, "DROP TABLE `%s`", placeholder_of(shadow));
    crash_point("swap_free");
  }
  session_run(gate, &ignored, "UNLOCK TABLES");
  if (session_await(renamer, &answer))
    return true;
  shadow_open_gate(gate, shadow);
  bool refused = failure.source == SOURCE_PROJECTOR && answer.code != TABLE_EXISTS;
  *ret_failure = failure.class == FAILURE_NONE || refused ? answer : failure;
  return false;
}
