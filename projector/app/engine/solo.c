/* solo.c - a lock that many workers share, or one has to itself; who wants it alone goes first. */
#include "projector/app/engine/solo.h"

#include "projector/infra/lock.h"

struct Solo {
  GMutex lock;
  GCond changed;
  unsigned inside, wanted; /* wanted: by those that wait for it alone */
  bool alone;              /* the one inside has it alone */
};

Solo *solo_new(void) {
  Solo *solo = g_new0(Solo, 1);
  g_mutex_init(&solo->lock);
  g_cond_init(&solo->changed);
  return solo;
}

void solo_free(Solo *solo) {
  if (!solo)
    return;
  g_assert(solo->inside == 0);
  g_mutex_clear(&solo->lock);
  g_cond_clear(&solo->changed);
  g_free(solo);
}

static bool may_enter(const Solo *solo, bool alone) {
  return alone ? solo->inside == 0 : !solo->alone && solo->wanted == 0;
}

void solo_enter(Solo *solo, bool alone) {
  SCOPED_LOCK(&solo->lock);
  solo->wanted += alone;
  while (!may_enter(solo, alone))
    g_cond_wait(&solo->changed, &solo->lock);
  solo->wanted -= alone;
  solo->alone = alone;
  solo->inside++;
}

void solo_leave(Solo *solo, bool alone) {
  SCOPED_LOCK(&solo->lock);
  g_assert(solo->inside > 0 && solo->alone == alone);
  solo->alone = false;
  solo->inside--;
  g_cond_broadcast(&solo->changed);
}
