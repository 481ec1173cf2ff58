/* solo.h - lets one event run while no other worker has events in hand.
 *
 * An event that was in hand when the process died may be what killed it. If the process dies again
 * while it runs alone, no other event can be to blame, and none is taken for it
 * (docs/adr/0023-claims-by-batch.md). */
#pragma once

#include <glib.h>
#include <stdbool.h>

typedef struct Solo Solo;

Solo *solo_new(void);
void solo_free(Solo *solo);

/* Call before anything is claimed. Waits while an event of another worker runs alone, or is waiting
 * to; with `alone`, until all other workers have left. */
void solo_enter(Solo *solo, bool alone);
/* The same worker has finished with these events. */
void solo_leave(Solo *solo, bool alone);
