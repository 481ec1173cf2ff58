/* failure.c - failure values, the classification of the stores' error numbers, and backoff. */
#include "projector/domain/failure.h"

#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A message becomes a string in MongoDB and in JSON, so broken characters are removed: the rest of
 * one that was cut off, at the end or in a text that a message quotes in part. */
static void keep_characters(char *text) {
  char *at = text;
  while (!g_utf8_validate(at, -1, (const char **)&at))
    memmove(at, at + 1, strlen(at));
}

bool failure_set(Failure *failure, FailureClass class, FailureSource source, int code,
                 const char *format, ...) {
  if (!failure)
    return false;
  failure->class = class;
  failure->source = source;
  failure->code = code;
  failure->step = STEP_NONE;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure->message, sizeof failure->message, format, arguments);
  va_end(arguments);
  keep_characters(failure->message);
  return false;
}

bool failure_at(Failure *failure, TransactionStep step, bool good) {
  if (!good && failure)
    failure->step = step;
  return good;
}

bool failure_prefix(Failure *failure, const char *format, ...) {
  if (!failure)
    return false;
  char joined[sizeof failure->message];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(joined, sizeof joined, format, arguments);
  va_end(arguments);
  keep_characters(joined);
  g_strlcat(joined, ": ", sizeof joined);
  g_strlcat(joined, failure->message, sizeof joined);
  keep_characters(joined);
  memcpy(failure->message, joined, sizeof joined);
  return false;
}

/* Whatever the value contains, even quotes: it cannot reach beyond the last " for ". */
void text_hide_quoted(char *text, size_t size) {
  static const char hidden[] = "…";
  size_t start = strcspn(text, "'\""), end = strlen(text);
  if (!text[start])
    return;
  const char *names = g_strrstr(text + start, "' for ");
  if (names)
    end = (size_t)(names - text) + 1;
  else
    while (end > start + 1 && !strchr("'\"", text[end - 1]))
      end--;
  if (end == start + 1) /* a quote without an end: the message was cut off */
    end = strlen(text);
  g_autofree char *rest = g_strdup(text + end);
  text[start] = '\0';
  g_strlcat(text, hidden, size);
  g_strlcat(text, rest, size);
  keep_characters(text);
}

/* The errors that quote only names, or nothing. Any other may quote values. */
static bool quotes_only_names(int code) {
  static const struct {
    int first, last;
  } codes[] = {{1044, 1054}, {1059, 1060}, {1067, 1075}, {1101, 1101}, {1109, 1109}, {1117, 1118},
               {1129, 1130}, {1136, 1136}, {1142, 1146}, {1170, 1170}, {1193, 1193}, {1205, 1213},
               {1216, 1217}, {1227, 1227}, {1231, 1232}, {1238, 1238}, {1264, 1265}, {1290, 1290},
               {1766, 1766}, {1305, 1305}, {1356, 1356}, {1364, 1365}, {1370, 1370}, {1406, 1406},
               {1451, 1452}, {1524, 1524}, {1698, 1698}, {2000, 2999}, {3118, 3118}, {3140, 3157},
               {3159, 3159}, {3819, 3819}, {3955, 3955}, {4025, 4025}};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (code >= codes[i].first && code <= codes[i].last)
      return true;
  return false;
}

Failure failure_without_values(const Failure *failure) {
  Failure redacted = *failure;
  if (failure->source == SOURCE_MYSQL && failure->code != 0 && !quotes_only_names(failure->code))
    text_hide_quoted(redacted.message, sizeof redacted.message);
  char *key = failure->source == SOURCE_MONGODB ? strstr(redacted.message, " dup key: {") : NULL;
  if (key)
    *key = '\0';
  char *found = failure->source == SOURCE_EVENT ? strstr(redacted.message, ", found ") : NULL;
  if (found)
    text_hide_quoted(found, sizeof redacted.message - (size_t)(found - redacted.message));
  return redacted;
}

const char *failure_class_name(FailureClass class) {
  static const char *const names[] = {
      [FAILURE_NONE] = "none",         [FAILURE_UNAVAILABLE] = "unavailable",
      [FAILURE_CONFLICT] = "conflict", [FAILURE_DATA] = "data",
      [FAILURE_MAPPING] = "mapping",   [FAILURE_CONFIG] = "config",
      [FAILURE_SPACE] = "space",       [FAILURE_SIZE] = "size",
      [FAILURE_FENCED] = "fenced",     [FAILURE_HISTORY] = "history",
      [FAILURE_UNKNOWN] = "unknown",
  };
  return names[class];
}

typedef struct CodeRange {
  int first, last;
  FailureClass class;
} CodeRange;

/* Server error numbers of MySQL 8.0 to 9.x and MariaDB 10.11, client error numbers from 2000.
 * Sources: MySQL 9 Error Reference; MariaDB error codes; ordered by class. */
static const CodeRange mysql_codes[] = {
    {2002, 2003, FAILURE_UNAVAILABLE}, /* cannot connect (socket, TCP) */
    {2005, 2006, FAILURE_UNAVAILABLE}, /* unknown host (DNS comes and goes), server has gone away */
    {2012, 2014, FAILURE_UNAVAILABLE}, /* handshake, lost connection; out of sync after one */
    {2026, 2026, FAILURE_UNAVAILABLE}, /* TLS connection error: also a server that is starting */
    {2055, 2055, FAILURE_UNAVAILABLE}, /* lost connection, with system error */
    {1037, 1037, FAILURE_UNAVAILABLE}, /* the server is out of memory */
    {1040, 1041, FAILURE_UNAVAILABLE}, /* too many connections; out of memory */
    {1053, 1053, FAILURE_UNAVAILABLE}, /* server shutdown in progress */
    {1077, 1079, FAILURE_UNAVAILABLE}, /* normal shutdown, aborting, shutdown complete */
    {1129, 1129, FAILURE_UNAVAILABLE}, /* host is blocked after many connection errors */
    {1135, 1135, FAILURE_UNAVAILABLE}, /* cannot create a thread */
    {1158, 1161, FAILURE_UNAVAILABLE}, /* network read and write errors and timeouts */
    {1203, 1203, FAILURE_UNAVAILABLE}, /* max_user_connections */
    {1226, 1226, FAILURE_UNAVAILABLE}, /* user resource limit, by the hour */
    {1290, 1290, FAILURE_UNAVAILABLE}, /* --read-only, --super-read-only */
    {1461, 1461, FAILURE_UNAVAILABLE}, /* max_prepared_stmt_count, of all sessions together */
    {1637, 1637, FAILURE_UNAVAILABLE}, /* too many concurrent transactions */
    {1792, 1792, FAILURE_UNAVAILABLE}, /* read-only transaction */
    {1836, 1836, FAILURE_UNAVAILABLE}, /* read-only mode */
    {1927, 1927, FAILURE_UNAVAILABLE}, /* MariaDB: connection was killed */
    {3015, 3015, FAILURE_UNAVAILABLE}, /* out of memory in the storage engine */
    {3168, 3169, FAILURE_UNAVAILABLE}, /* server is not available now; session was killed */
    {3955, 3955, FAILURE_UNAVAILABLE}, /* account is blocked for days after wrong passwords */
    {3985, 3985, FAILURE_UNAVAILABLE}, /* no resources for a metadata lock */
    {4031, 4031, FAILURE_UNAVAILABLE}, /* disconnected because of inactivity */
    {4081, 4081, FAILURE_UNAVAILABLE}, /* memory limit of all connections */
    {1020, 1020, FAILURE_CONFLICT},    /* MariaDB: record has changed since last read */
    {1180, 1180, FAILURE_CONFLICT},    /* got error during COMMIT */
    {1205, 1206, FAILURE_CONFLICT},    /* lock wait timeout; lock table full */
    {1213, 1213, FAILURE_CONFLICT},    /* deadlock */
    {1317, 1317, FAILURE_CONFLICT},    /* query execution was interrupted */
    {1615, 1615, FAILURE_CONFLICT},    /* prepared statement: its table has changed, again */
    {3024, 3024, FAILURE_CONFLICT},    /* maximum statement execution time */
    {3101, 3101, FAILURE_CONFLICT},    /* group replication: transaction rolled back */
    {3572, 3572, FAILURE_CONFLICT},    /* NOWAIT lock */
    {1048, 1048, FAILURE_DATA},        /* NULL for NOT NULL */
    {1062, 1062, FAILURE_DATA},        /* duplicate key, not the ledger's */
    {1169, 1169, FAILURE_DATA},        /* duplicate key on update */
    {1216, 1217, FAILURE_DATA},        /* foreign key, without names */
    {1264, 1265, FAILURE_DATA},        /* out of range, truncated */
    {1267, 1267, FAILURE_DATA},        /* MySQL 8.0: a key's text is not in its character set */
    {1292, 1292, FAILURE_DATA},        /* incorrect value */
    {1364, 1364, FAILURE_DATA},        /* column has no default */
    {1365, 1366, FAILURE_DATA},        /* division by zero, incorrect value for column */
    {1406, 1406, FAILURE_DATA},        /* too long */
    {1411, 1411, FAILURE_DATA},        /* incorrect value for function */
    {1451, 1452, FAILURE_DATA},        /* foreign key */
    {1526, 1526, FAILURE_DATA},        /* no partition for the value */
    {1586, 1586, FAILURE_DATA},        /* duplicate key, with name */
    {1644, 1644, FAILURE_DATA},        /* SIGNAL from a trigger */
    {1690, 1690, FAILURE_DATA},        /* arithmetic out of range */
    {3140, 3157, FAILURE_DATA},        /* JSON */
    {3819, 3819, FAILURE_DATA},        /* CHECK constraint, MySQL */
    {3854, 3854, FAILURE_DATA},        /* text that the column's character set cannot hold */
    {3988, 3988, FAILURE_DATA},        /* the same, of a bound parameter */
    {4025, 4025, FAILURE_DATA},        /* CHECK constraint, MariaDB */
    {1054, 1054, FAILURE_MAPPING},     /* unknown column */
    {1064, 1064, FAILURE_MAPPING},     /* syntax */
    {1109, 1109, FAILURE_MAPPING},     /* unknown table in statement */
    {1059, 1060, FAILURE_MAPPING},     /* DDL: name too long, column named twice */
    {1067, 1075, FAILURE_MAPPING},     /* DDL: a default, a key or a length that cannot be */
    {1097, 1097, FAILURE_MAPPING},     /* DDL: too many labels of an enum */
    {1101, 1101, FAILURE_MAPPING},     /* DDL: default of a BLOB, TEXT or JSON */
    {1117, 1118, FAILURE_MAPPING},     /* DDL: too many columns, row too large */
    {1136, 1136, FAILURE_MAPPING},     /* column count */
    {1146, 1146, FAILURE_MAPPING},     /* table does not exist */
    {1033, 1036, FAILURE_MAPPING},     /* damaged or old table file, read-only table */
    {1194, 1195, FAILURE_MAPPING},     /* crashed table */
    {1170, 1170, FAILURE_MAPPING},     /* DDL: a BLOB or TEXT in a key */
    {1291, 1291, FAILURE_MAPPING},     /* DDL: two labels that the collation takes for one */
    {1293, 1294, FAILURE_MAPPING},     /* DDL: TIMESTAMP with a default that cannot be */
    {1305, 1305, FAILURE_MAPPING},     /* function or procedure does not exist */
    {1356, 1356, FAILURE_MAPPING},     /* view is invalid */
    {1425, 1427, FAILURE_MAPPING},     /* DDL: scale, precision */
    {1439, 1439, FAILURE_MAPPING},     /* DDL: width */
    {1449, 1449, FAILURE_MAPPING},     /* the definer of a trigger or view does not exist */
    {1712, 1712, FAILURE_MAPPING},     /* damaged index */
    {1812, 1812, FAILURE_MAPPING},     /* tablespace is missing */
    {1814, 1814, FAILURE_MAPPING},     /* tablespace was discarded */
    {1877, 1877, FAILURE_MAPPING},     /* damaged table */
    {1932, 1932, FAILURE_MAPPING},     /* MariaDB: table is not there in the engine */
    {1044, 1045, FAILURE_CONFIG},      /* access denied to database, to user */
    {1049, 1049, FAILURE_CONFIG},      /* unknown database */
    {1130, 1130, FAILURE_CONFIG},      /* host may not connect */
    {1142, 1143, FAILURE_CONFIG},      /* command denied on table, on column */
    {1227, 1227, FAILURE_CONFIG},      /* privilege missing */
    {1251, 1251, FAILURE_CONFIG},      /* client cannot do what the user's plugin requires */
    {1370, 1370, FAILURE_CONFIG},      /* EXECUTE denied */
    {1524, 1524, FAILURE_CONFIG},      /* plugin of the user is not loaded */
    {1698, 1698, FAILURE_CONFIG},      /* access denied by a plugin without passwords */
    {1820, 1820, FAILURE_CONFIG},      /* password has expired */
    {1862, 1862, FAILURE_CONFIG},      /* the same, at login */
    {2059, 2059, FAILURE_CONFIG},      /* the client lacks the user's plugin */
    {2061, 2061, FAILURE_CONFIG},      /* plugin refuses, for example without TLS */
    {3118, 3118, FAILURE_CONFIG},      /* account is locked, MySQL */
    {3159, 3159, FAILURE_CONFIG},      /* require_secure_transport */
    {4151, 4151, FAILURE_CONFIG},      /* account is locked, MariaDB */
    {1021, 1021, FAILURE_SPACE},       /* disk full */
    {1114, 1114, FAILURE_SPACE},       /* table is full */
    {1878, 1878, FAILURE_SPACE},       /* a temporary file cannot be written */
    {3019, 3019, FAILURE_SPACE},       /* no room for undo logs */
    {1153, 1153, FAILURE_SIZE},        /* packet larger than max_allowed_packet */
    {2020, 2020, FAILURE_SIZE},        /* the same, seen by the client */
    {1197, 1197, FAILURE_SIZE},        /* transaction larger than max_binlog_cache_size */
    {1301, 1301, FAILURE_SIZE},        /* a function's result larger than max_allowed_packet */
    {1390, 1390, FAILURE_SIZE},        /* too many placeholders */
    {1436, 1436, FAILURE_SIZE},        /* thread stack overrun by one statement */
};

enum { ATLAS_ERROR = 8000 };

/* MongoDB server error codes (error_codes.yml); driver errors are classified by their domain. */
static const CodeRange mongodb_codes[] = {
    {6, 7, FAILURE_UNAVAILABLE},         /* HostUnreachable, HostNotFound */
    {50, 50, FAILURE_UNAVAILABLE},       /* MaxTimeMSExpired */
    {63, 64, FAILURE_UNAVAILABLE},       /* StaleShardVersion, WriteConcernTimeout */
    {70, 70, FAILURE_UNAVAILABLE},       /* ShardNotFound */
    {89, 91, FAILURE_UNAVAILABLE},       /* NetworkTimeout, CallbackCanceled, ShutdownInProgress */
    {100, 100, FAILURE_UNAVAILABLE},     /* UnsatisfiableWriteConcern */
    {107, 107, FAILURE_UNAVAILABLE},     /* LockFailed */
    {112, 112, FAILURE_CONFLICT},        /* WriteConflict */
    {133, 134, FAILURE_UNAVAILABLE},     /* FailedToSatisfyReadPreference, ReadConcern… not yet */
    {150, 150, FAILURE_UNAVAILABLE},     /* StaleEpoch */
    {189, 189, FAILURE_UNAVAILABLE},     /* PrimarySteppedDown */
    {202, 202, FAILURE_UNAVAILABLE},     /* NetworkInterfaceExceededTimeLimit */
    {234, 234, FAILURE_UNAVAILABLE},     /* RetryChangeStream */
    {262, 262, FAILURE_UNAVAILABLE},     /* ExceededTimeLimit */
    {317, 317, FAILURE_UNAVAILABLE},     /* ConnectionPoolExpired */
    {358, 358, FAILURE_UNAVAILABLE},     /* InternalTransactionNotSupported */
    {371, 371, FAILURE_UNAVAILABLE},     /* UserWritesBlocked: setUserWriteBlockMode */
    {384, 384, FAILURE_UNAVAILABLE},     /* ConnectionError */
    {9001, 9001, FAILURE_UNAVAILABLE},   /* SocketException */
    {10058, 10058, FAILURE_UNAVAILABLE}, /* NotWritablePrimary, legacy */
    {10107, 10107, FAILURE_UNAVAILABLE}, /* NotWritablePrimary */
    {11600, 11602, FAILURE_UNAVAILABLE}, /* Interrupted… at shutdown, by step-down */
    {13388, 13388, FAILURE_UNAVAILABLE}, /* StaleConfig */
    {13435, 13436, FAILURE_UNAVAILABLE}, /* NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary */
    {43, 43, FAILURE_HISTORY},           /* CursorNotFound */
    {136, 136, FAILURE_HISTORY},         /* CappedPositionLost */
    {175, 175, FAILURE_HISTORY},         /* QueryPlanKilled: collection dropped or renamed */
    {222, 222, FAILURE_HISTORY},         /* CloseChangeStream */
    {237, 237, FAILURE_HISTORY},         /* CursorKilled */
    {239, 239, FAILURE_HISTORY},         /* SnapshotTooOld */
    {246, 246, FAILURE_HISTORY},         /* SnapshotUnavailable */
    {260, 260, FAILURE_HISTORY},         /* InvalidResumeToken */
    {280, 280, FAILURE_HISTORY},         /* ChangeStreamFatalError */
    {286, 286, FAILURE_HISTORY},         /* ChangeStreamHistoryLost */
    {10334, 10334, FAILURE_HISTORY},     /* BSONObjectTooLarge: a change event above 16 MB */
    {13, 13, FAILURE_CONFIG},            /* Unauthorized */
    {18, 18, FAILURE_CONFIG},            /* AuthenticationFailed */
    {73, 73, FAILURE_CONFIG},            /* InvalidNamespace */
    {322, 323, FAILURE_CONFIG},          /* APIVersionError, APIStrictError: requireApiVersion */
    {ATLAS_ERROR, ATLAS_ERROR, FAILURE_CONFIG}, /* as a rule authentication or privileges */
    {40573, 40573, FAILURE_CONFIG},             /* change streams need a replica set */
    {121, 121, FAILURE_DATA},                   /* DocumentValidationFailure */
    {14031, 14031, FAILURE_SPACE},              /* OutOfDiskSpace */
    {17419, 17420, FAILURE_SIZE}, /* a document that an update makes larger than 16 MB */
};

static FailureClass find_class(const CodeRange *ranges, size_t count, int code) {
  for (size_t i = 0; i < count; i++)
    if (code >= ranges[i].first && code <= ranges[i].last)
      return ranges[i].class;
  return FAILURE_UNKNOWN;
}

FailureClass failure_class_of_mysql(int code) {
  return find_class(mysql_codes, sizeof mysql_codes / sizeof *mysql_codes, code);
}

/* 1030 "Got error 28 …", 3 and 1026 "(errno: 28 …)", "(OS errno 28 …)": ENOSPC; 122 in the latter
 * two: EDQUOT (in the first it is an engine's internal error). */
FailureClass failure_class_of_mysql_text(int code, const char *message) {
  FailureClass class = failure_class_of_mysql(code);
  static const char *const full[] = {"Got error 28", "errno: 28", "errno 28",    "Errcode: 28",
                                     "errno: 122",   "errno 122", "Errcode: 122"};
  for (size_t i = 0; i < G_N_ELEMENTS(full) && class == FAILURE_UNKNOWN; i++) {
    const char *at = strstr(message, full[i]);
    if (at && !g_ascii_isdigit(at[strlen(full[i])]))
      class = FAILURE_SPACE;
  }
  return class;
}

FailureClass failure_class_of_mongodb(int code) {
  return find_class(mongodb_codes, sizeof mongodb_codes / sizeof *mongodb_codes, code);
}

/* 8000 is whatever Atlas refuses, for example "you are over your space quota, using 512 MB of 512
 * MB". */
FailureClass failure_class_of_mongodb_text(int code, const char *message) {
  return code == ATLAS_ERROR && strstr(message, "space quota") ? FAILURE_SPACE
                                                               : failure_class_of_mongodb(code);
}

bool failure_is_refusal(const Failure *failure) {
  return failure->class == FAILURE_SIZE || failure->class == FAILURE_DATA ||
         failure->class == FAILURE_UNKNOWN;
}

int64_t backoff_delay_ms(int attempts, int64_t base_ms, int64_t max_ms, uint32_t random) {
  int64_t limit = base_ms;
  for (int i = 1; i < attempts && limit < max_ms; i++)
    limit *= 2;
  if (limit > max_ms)
    limit = max_ms;
  if (limit < 1)
    return 1;
  return 1 + (int64_t)((uint64_t)limit * random >> 32);
}
