/* real.c - shortest text, distance, and the probe of a server's JSON parser. */
#include "projector/domain/real.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* --- text ----------------------------------------------------------------------------------- */

void real_format(double real, char text[static REAL_TEXT_SIZE]) {
  static const char *const formats[] = {"%.15g", "%.16g", "%.17g"};
  for (size_t i = 0; i < G_N_ELEMENTS(formats); i++) {
    g_ascii_formatd(text, REAL_TEXT_SIZE, formats[i], real);
    if (g_ascii_strtod(text, NULL) == real)
      return;
  }
}

/* The end of the string that begins at `at`, after its closing quote. */
static const char *end_of_string(const char *at, const char *end) {
  for (at++; at < end && *at != '"'; at++)
    at += *at == '\\';
  return MIN(at + 1, end);
}

static void append_number(GString *to, const char *number, size_t length) {
  char text[REAL_TEXT_SIZE];
  g_autofree char *copy = g_strndup(number, length);
  double real = g_ascii_strtod(copy, NULL);
  if (!strpbrk(copy, ".eE") || !isfinite(real)) {
    g_string_append_len(to, number, (gssize)length);
    return;
  }
  real_format(real, text);
  g_string_append(to, text);
  if (!strpbrk(text, ".e")) /* 2.0 is not the integer 2 */
    g_string_append(to, ".0");
}

void json_append_short(GString *to, const char *json, size_t length) {
  const char *end = json + length;
  for (const char *at = json, *next; at < end; at = next) {
    if (*at == '"') {
      next = end_of_string(at, end);
      g_string_append_len(to, at, next - at);
    } else if (g_ascii_isdigit(*at) || *at == '-') {
      for (next = at + 1; next < end && (g_ascii_isdigit(*next) || strchr("+-.eE", *next)); next++)
        ;
      append_number(to, at, (size_t)(next - at));
    } else {
      next = at + 1;
      g_string_append_c(to, *at);
    }
  }
}

/* --- distance ------------------------------------------------------------------------------- */

/* Doubles in the order of their values. */
static int64_t rank_of(double real) {
  int64_t bits;
  memcpy(&bits, &real, sizeof bits);
  return bits < 0 ? INT64_MIN - bits : bits;
}

uint64_t real_distance(double a, double b) {
  int64_t x = rank_of(a), y = rank_of(b);
  return x > y ? (uint64_t)x - (uint64_t)y : (uint64_t)y - (uint64_t)x;
}

static bool same(const json_t *a, const json_t *b, unsigned slack);

static bool same_objects(const json_t *a, const json_t *b, unsigned slack) {
  const char *key;
  const json_t *member;
  if (json_object_size(a) != json_object_size(b))
    return false;
  json_object_foreach((json_t *)a, key, member) {
    const json_t *other = json_object_get(b, key);
    if (!other || !same(member, other, slack))
      return false;
  }
  return true;
}

static bool same(const json_t *a, const json_t *b, unsigned slack) {
  if (json_typeof(a) != json_typeof(b))
    return false;
  if (json_is_real(a))
    return real_distance(json_real_value(a), json_real_value(b)) <= slack;
  if (json_is_object(a))
    return same_objects(a, b, slack);
  if (!json_is_array(a))
    return json_equal(a, b);
  bool equal = json_array_size(a) == json_array_size(b);
  for (size_t i = 0; equal && i < json_array_size(a); i++)
    equal = same(json_array_get(a, i), json_array_get(b, i), slack);
  return equal;
}

bool json_text_same(const char *a, size_t a_length, const char *b, size_t b_length,
                    unsigned slack) {
  json_t *x = json_loadb(a, a_length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  json_t *y = json_loadb(b, b_length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  bool equal = x && y && (slack ? same(x, y, slack) : json_equal(x, y));
  json_decref(x);
  json_decref(y);
  return equal;
}

/* --- the probe ------------------------------------------------------------------------------ */

/* The parser rounds the 17 digits of the significand to a double, and once more when it multiplies
 * or divides by a power of ten; these numbers come out wrong. */
const char json_probe[] =
    "[0.9452706955539223, 0.38120423768821243, 10.149298892552117, 184.46751421470998,"
    " 23.955720489371334, 1.1095234349293547e-153, 1.1251543380879533e-38,"
    " 9.1867720128443091e-293, 9.7833062177697015e+244]";

bool json_probe_judge(const char *answer, size_t length, unsigned *ret_slack) {
  json_t *expected = json_loadb(json_probe, strlen(json_probe), 0, NULL);
  json_t *found = json_loadb(answer, length, 0, NULL);
  bool good = json_is_array(found) && json_array_size(found) == json_array_size(expected);
  *ret_slack = good && json_equal(expected, found) ? 0 : REAL_SLACK;
  json_decref(expected);
  json_decref(found);
  return good;
}
