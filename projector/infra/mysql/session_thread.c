/* session_thread.c - frees what MySQL's client keeps for a thread when the thread ends. */
#include "projector/infra/mysql/session_thread.h"

#include <mysql.h>

typedef struct Start {
  GThreadFunc run;
  gpointer data;
} Start;

static gpointer run_start(gpointer data) {
  Start start = *(Start *)data;
  g_free(data);
  mysql_thread_init();
  gpointer result = start.run(start.data);
  mysql_thread_end();
  return result;
}

GThread *session_thread_new(const char *name, GThreadFunc run, gpointer data) {
  Start *start = g_new(Start, 1);
  *start = (Start){run, data};
  return g_thread_new(name, run_start, start);
}
