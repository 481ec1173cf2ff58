/* lock.h - a lock that is held until the end of the block. */
#pragma once

#include <glib.h>

#define SCOPED_LOCK(mutex) G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(mutex)
