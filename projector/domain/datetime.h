/* datetime.h - dates between BSON (ms since 1970, UTC) and SQL text, without time zones or
 * clocks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DATETIME_TEXT_SIZE = 32 };

#define DATETIME_FIRST_MS INT64_C(-30610224000000)        /* 1000-01-01 */
#define DATETIME_COLUMN_FIRST_MS INT64_C(-62135596800000) /* 0001-01-01 */
#define DATETIME_LAST_MS INT64_C(253402300799999)         /* 9999-12-31 23:59:59.999 */

/* From year 1000 to 9999, the range that MySQL documents for DATETIME: that of an event's time. */
bool datetime_in_range(int64_t ms);
/* From year 1 on: the servers store such dates too. */
bool datetime_fits_column(int64_t ms);

/* "2024-05-06 07:08:09.123456" with `fraction` digits (0 to 6) of `us`, microseconds since 1970.
 * Returns the length. */
size_t datetime_format(int64_t us, unsigned fraction, char text[static DATETIME_TEXT_SIZE]);

/* Reads "YYYY-MM-DD", or with `time` "YYYY-MM-DDTHH:MM:SS[.ffffff]Z" (a blank may stand for the T,
 * "+02:00" for the Z; behind six digits there may be zeros). Years 1 to 9999. */
bool datetime_parse(const char *text, size_t length, bool time, int64_t *ret_us);

/* A readable duration: "46 ms", "3.2 s", "3 min 8 s", "2 h 5 min", "3 d 4 h". Returns the
 * text. */
enum { DURATION_TEXT_SIZE = 32 };
const char *duration_text(int64_t ms, char text[static DURATION_TEXT_SIZE]);
