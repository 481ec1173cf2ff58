/* key_collation.h - how the columns of a key compare texts.
 *
 * A row whose key is an aggregate's id belongs to that aggregate alone. A collation that considers
 * two ids equal would give them one row; apply.c prevents that, and `check` reports it. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/session.h"

typedef struct KeyCollation {
  char charset[64], collation[64]; /* empty when there is no such table or column, or no text */
  bool pads;                       /* blanks at the end do not count */
  bool loose;                      /* it considers texts equal whose bytes differ */
} KeyCollation;

/* Judged by its name: NO PAD are MySQL's newer ones, and those that say so. */
bool collation_pads(const char *collation);
/* Whether the column of a key is an aggregate's id as text. */
bool key_is_text_of_id(const Column *column);
bool key_collation_read(Session *session, const Projection *projection, const Column *key,
                        KeyCollation *ret_collation, Failure *ret_failure);
/* For each column of the key '1' if it is such an id and its collation considers different ids
 * equal, else '0'; "" if none is. Cached in the session; NULL when the server could not be
 * asked. */
const char *key_collation_loose(Session *session, const Projection *projection,
                                Failure *ret_failure);
