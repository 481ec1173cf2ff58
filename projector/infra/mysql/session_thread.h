/* session_thread.h - threads that open sessions. */
#pragma once

#include <glib.h>

/* g_thread_new for such a thread. It is joined before the program ends: MySQL's client waits some
 * seconds for those that are not. */
GThread *session_thread_new(const char *name, GThreadFunc run, gpointer data);
