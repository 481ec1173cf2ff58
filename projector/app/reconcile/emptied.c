/* emptied.c - looks for the collection and one row. */
#include "projector/app/reconcile/emptied.h"

#include "projector/infra/mongo/entities.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

static bool is_emptied(Stores *stores, const Projection *projection, bool *ret_emptied,
                       Failure *ret_failure) {
  bool entities, rows = false;
  if (!entities_exist(stores->store, projection->entities, &entities, ret_failure) ||
      (!entities && !rows_find_unmarked(stores->session, projection, NULL, &rows, ret_failure)))
    return false;
  *ret_emptied = !entities && rows;
  return true;
}

bool emptied_find(Stores *stores, const char *aggregate_type, const Projection **ret_emptied,
                  Failure *ret_failure) {
  const Mapping *mapping = stores->config->mapping;
  const Projection *found = NULL;
  if (!stores_wake(stores, ret_failure))
    return false;
  for (unsigned i = 0; i < mapping_projection_count(mapping) && !found; i++) {
    const Projection *projection = mapping_projection(mapping, i);
    bool emptied = false;
    if (projection->entities && !strcmp(projection->aggregate_type, aggregate_type) &&
        !is_emptied(stores, projection, &emptied, ret_failure))
      return false;
    if (emptied)
      found = projection;
  }
  *ret_emptied = found;
  return true;
}

bool emptied_refuse(Stores *stores, const char *aggregate_type, Failure *ret_failure) {
  const Projection *emptied;
  if (!emptied_find(stores, aggregate_type, &emptied, ret_failure))
    return false;
  return !emptied ||
         failure_refuse(ret_failure,
                        "%s.%s does not exist, but the table %s has rows: all of them would be "
                        "deleted. Correct \"entities\" in the mapping, or restore the collection; "
                        "if it was dropped on purpose, use --force",
                        stores->config->mongodb.database, emptied->entities, emptied->table);
}
