/* real.h - doubles as text in JSON, and how far a server may be off when it reads them.
 *
 * MySQL 8.0 reads the numbers of a JSON text without full precision: about one in nine doubles with
 * 16 or 17 digits comes out one unit in the last place off, a few with large exponents two or
 * three. Up to 15 digits and with small exponents it reads them exactly, as MySQL 9 reads all, and
 * MariaDB keeps the text. So doubles are written with as few digits as they need, the server is
 * probed with some that are known to come out wrong, and if it fails, doubles that close count as
 * equal. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { REAL_TEXT_SIZE = G_ASCII_DTOSTR_BUF_SIZE };

/* The fewest digits that read back as the same double; finite ones only. */
void real_format(double real, char text[static REAL_TEXT_SIZE]);

/* Appends a valid JSON text with its doubles in that form; an integer stays as it is. */
void json_append_short(GString *to, const char *json, size_t length);

/* How many doubles lie between the two, and one; 0: the same, also 0.0 and -0.0. */
uint64_t real_distance(double a, double b);

/* Whether two JSON texts have the same content, doubles to within `slack` units in the last
 * place. */
bool json_text_same(const char *a, size_t a_length, const char *b, size_t b_length, unsigned slack);

/* A JSON array of doubles of which such a server reads most wrong; to be cast to JSON and back. */
extern const char json_probe[];
/* Evaluates the answer to the probe: how many units in the last place the server's doubles may be
 * off, 0 or REAL_SLACK. Returns false when the answer is not such an array. */
enum { REAL_SLACK = 3 };
bool json_probe_judge(const char *answer, size_t length, unsigned *ret_slack);
