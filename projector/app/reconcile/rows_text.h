/* rows_text.h - an aggregate's rows in words, before an operator removes them. */
#pragma once

#include "projector/app/shared/stores.h"

/* The aggregate's rows: "account: account_id a1, name Ada; …"; "" when there are none. Only of keys
 * that are made of $aggregate_id. Free with g_free. */
bool rows_text(Stores *stores, const Aggregate *aggregate, char **ret_text, Failure *ret_failure);
