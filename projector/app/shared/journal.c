/* journal.c - an append-only file of JSON lines. */
#include "projector/app/shared/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct Journal {
  FILE *file;
  char *path;
};

static char *path_of(const char *name, const char *command) {
  const char *state = g_getenv("XDG_STATE_HOME");
  g_autofree char *base = state && *state
                              ? g_strdup(state)
                              : g_build_filename(g_get_home_dir(), ".local", "state", NULL);
  g_autofree char *file = g_strdup_printf("%s.%s", name, command);
  return g_build_filename(base, "projector", file, NULL);
}

/* What must be the same when the command is resumed: stores, tables and mapping. Users and
 * passwords may change meanwhile. */
static json_t *header_of(const Config *config, const char *command) {
  const json_t *json = config->json;
  const json_t *mongodb = json_object_get(json, "mongodb"), *mysql = json_object_get(json, "mysql");
  const MysqlSettings *server = &config->mysql;
  g_autofree char *deployment = mongo_uri_deployment(config->mongodb.uri);
  json_t *both =
      json_pack("{s:s, s:O, s:s, s:O, s:s?, s:i, s:s?, s:O}", "deployment", deployment, "mongodb",
                json_object_get(mongodb, "database"), "outbox", config->mongodb.outbox, "mysql",
                json_object_get(mysql, "database"), "host", server->host, "port", (int)server->port,
                "socket", server->socket, "projections", json_object_get(json, "projections"));
  char *dump = json_dumps(both, JSON_COMPACT | JSON_SORT_KEYS);
  g_autofree char *text = g_compute_checksum_for_string(G_CHECKSUM_SHA256, dump ? dump : "", -1);
  free(dump);
  json_decref(both);
  return json_pack("{s:i, s:s, s:s, s:s}", "journal", 1, "command", command, "name", config->name,
                   "mapping", text);
}

static bool fail(const char *path, const char *what, Failure *ret_failure) {
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s: %s; see --state", path,
                     what);
}

static void append(Journal *journal, const json_t *line) {
  json_dumpf(line, journal->file, JSON_COMPACT);
  fputc('\n', journal->file);
  fflush(journal->file);
}

void journal_line(Journal *journal, const json_t *line) {
  if (journal)
    append(journal, line);
}

void journal_checkpoint(Journal *journal, json_t *checkpoint) {
  json_t *line = json_pack("{s:o}", "mark", checkpoint);
  if (journal)
    append(journal, line);
  json_decref(line);
}

void journal_close(Journal *journal, bool failed) {
  if (!journal)
    return;
  if (!failed)
    unlink(journal->path);
  fclose(journal->file);
  g_free(journal->path);
  g_free(journal);
}

static void take_all(GPtrArray *lines, bool repaired_only, JournalLine take, void *data) {
  for (guint i = 0; i < lines->len; i++)
    if (!repaired_only || json_is_true(json_object_get(lines->pdata[i], "mended")))
      take(lines->pdata[i], data);
  g_ptr_array_set_size(lines, 0);
}

/* Delivers the lines before each checkpoint and, of the lines after the last checkpoint, the
 * repaired ones. */
static void read_lines(FILE *file, JournalLine take, void *data, json_t **ret_checkpoint) {
  g_autoptr(GPtrArray) open = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
  char *text = NULL;
  size_t size = 0;
  while (getline(&text, &size, file) > 0) {
    json_t *line = json_loads(text, 0, NULL); /* NULL: cut off when the process was killed */
    json_t *checkpoint = json_object_get(line, "mark");
    if (checkpoint) {
      take_all(open, false, take, data);
      json_decref(*ret_checkpoint);
      *ret_checkpoint = json_incref(checkpoint);
    } else if (json_object_get(line, "resumed")) {
      take_all(open, true, take, data);
    } else if (line) {
      g_ptr_array_add(open, json_incref(line));
    }
    json_decref(line);
  }
  take_all(open, true, take, data);
  free(text);
}

/* Returns false when there is nothing to resume, or the journal belongs to another run
 * (`ret_failure` says so). */
static bool resume_from(Journal *journal, const json_t *header, const JournalOptions *options,
                        json_t **ret_checkpoint, Failure *ret_failure) {
  char *text = NULL;
  size_t size = 0;
  rewind(journal->file);
  json_t *found = getline(&text, &size, journal->file) > 0 ? json_loads(text, 0, NULL) : NULL;
  free(text);
  bool same = found && json_equal(found, header);
  if (found && !same)
    fail(journal->path,
         "the stores, the mapping or the options are not those of the interrupted run; start again "
         "without --resume",
         ret_failure);
  json_decref(found);
  if (same)
    read_lines(journal->file, options->take, options->data, ret_checkpoint);
  return same;
}

static bool lock(Journal *journal, Failure *ret_failure) {
  return flock(fileno(journal->file), LOCK_EX | LOCK_NB) == 0 ||
         fail(journal->path, "another process of this name has it open", ret_failure);
}

static Journal *open_file(const char *path, const json_t *header, const JournalOptions *options,
                          json_t **ret_checkpoint, Failure *ret_failure) {
  g_autofree char *folder = g_path_get_dirname(path);
  g_mkdir_with_parents(folder, 0700);
  int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  Journal *journal = NULL;
  *ret_checkpoint = NULL;
  if (fd < 0) {
    fail(path, errno == ELOOP ? "it is a symbolic link, which is not followed" : strerror(errno),
         ret_failure);
  } else {
    journal = g_new0(Journal, 1);
    journal->file = fdopen(fd, "a+");
    journal->path = g_strdup(path);
    Failure failure = {0};
    bool good = lock(journal, &failure);
    bool resumed =
        good && options->resume && resume_from(journal, header, options, ret_checkpoint, &failure);
    if (failure.class != FAILURE_NONE) {
      *ret_failure = failure;
      journal_close(g_steal_pointer(&journal), true);
    } else if (resumed) {
      fputs("\n{\"resumed\":true}\n", journal->file);
    } else if (ftruncate(fd, 0) == 0) {
      append(journal, header);
    }
  }
  return journal;
}

bool journal_begin(const JournalOptions *options, const Config *config, json_t *own,
                   Journal **ret_journal, json_t **ret_checkpoint, Failure *ret_failure) {
  g_autofree char *path =
      options->state ? g_strdup(options->state) : path_of(config->name, options->command);
  json_t *header = header_of(config, options->command);
  Failure failure = {0};
  json_object_update(header, own);
  json_decref(own);
  *ret_journal = open_file(path, header, options, ret_checkpoint, &failure);
  json_decref(header);
  if (!*ret_journal && options->resume) {
    *ret_failure = failure;
    return false;
  }
  if (!*ret_journal)
    fprintf(stderr, "projector: cannot be resumed if interrupted: %s\n", failure.message);
  else if (options->resume && !*ret_checkpoint)
    fprintf(stderr, "projector: nothing to resume in %s; from the beginning\n", path);
  return true;
}
