/* literals.h - the promise about SQL literals, for the targets that write some. */
#pragma once

#include "projector/domain/value.h"

/* Ends the process unless the literal is one value to the servers, wherever it stands and whatever
 * sql_mode says, and that value is the given one. */
void check_literal(const char *sql, size_t length, const Value *value);
