/* neighbour.h - who listens already on the address that this projector is to listen on. */
#pragma once

#include "projector/domain/failure.h"

typedef enum Neighbour {
  NEIGHBOUR_NONE,      /* the address is free */
  NEIGHBOUR_PROJECTOR, /* a projector, and its name, unless it has just started */
  NEIGHBOUR_OTHER,     /* not to be had, for the reason in `ret_why` */
} Neighbour;

/* Asks whoever listens there for its status, and waits some seconds for it at most. `*ret_name`: to
 * be freed; NULL: none, or not known. */
Neighbour http_find_neighbour(const char *address, char **ret_name, Failure *ret_why);
