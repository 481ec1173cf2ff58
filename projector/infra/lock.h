/* lock.h - locks that are held until the end of the block. */
#pragma once

#include <glib.h>

#define SCOPED_LOCK(mutex) G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(mutex)

/* In what is called with the lock held. */
#define ASSERT_LOCKED(mutex) g_assert(!g_mutex_trylock(mutex))
