/* datetime.c - the proleptic Gregorian calendar that BSON dates and MySQL share. */
#include "projector/domain/datetime.h"

#include <glib.h>
#include <stdio.h>

enum { US_PER_SECOND = 1000000 };
static const int64_t us_per_day = 86400LL * US_PER_SECOND;

/* Days since 1970-01-01 of a civil date and back, counting years from March so that the leap day
 * comes last (the 400-year era arithmetic of Howard Hinnant's "chrono-compatible" date
 * algorithms). */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day) {
  year -= month <= 2;
  int64_t era = (year >= 0 ? year : year - 399) / 400;
  int64_t year_of_era = year - era * 400;
  int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(int64_t days, int64_t *ret_year, unsigned *ret_month,
                            unsigned *ret_day) {
  days += 719468;
  int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  int64_t day_of_era = days - era * 146097;
  int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  int64_t month = (5 * day_of_year + 2) / 153;
  *ret_day = (unsigned)(day_of_year - (153 * month + 2) / 5 + 1);
  *ret_month = (unsigned)(month < 10 ? month + 3 : month - 9);
  *ret_year = year_of_era + era * 400 + (*ret_month <= 2);
}

bool datetime_in_range(int64_t ms) {
  return ms >= DATETIME_FIRST_MS && ms <= DATETIME_LAST_MS;
}

bool datetime_fits_column(int64_t ms) {
  return ms >= DATETIME_COLUMN_FIRST_MS && ms <= DATETIME_LAST_MS;
}

size_t datetime_format(int64_t us, unsigned fraction, char text[static DATETIME_TEXT_SIZE]) {
  int64_t days = us / us_per_day, rest = us % us_per_day;
  if (rest < 0) {
    rest += us_per_day;
    days--;
  }
  int64_t year;
  unsigned month, day;
  civil_from_days(days, &year, &month, &day);
  unsigned seconds = (unsigned)(rest / US_PER_SECOND), micros = (unsigned)(rest % US_PER_SECOND);
  int length = snprintf(text, DATETIME_TEXT_SIZE, "%04d-%02u-%02u %02u:%02u:%02u.%06u",
                        (int)(year % 10000), month % 100, day % 100, seconds / 3600 % 24,
                        seconds / 60 % 60, seconds % 60, micros);
  length -= fraction ? 6 - (int)fraction : 7;
  text[length] = '\0';
  return (size_t)length;
}

static bool digits(const char **at, const char *end, int count, unsigned *ret_number) {
  unsigned number = 0;
  for (int i = 0; i < count; i++, (*at)++) {
    if (*at == end || **at < '0' || **at > '9')
      return false;
    number = number * 10 + (unsigned)(**at - '0');
  }
  *ret_number = number;
  return true;
}

static bool literally(const char **at, const char *end, char wanted) {
  if (*at == end || **at != wanted)
    return false;
  (*at)++;
  return true;
}

static bool parse_date(const char **at, const char *end, int64_t *ret_days) {
  static const unsigned month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  unsigned year, month, day;
  if (!digits(at, end, 4, &year) || !literally(at, end, '-') || !digits(at, end, 2, &month) ||
      !literally(at, end, '-') || !digits(at, end, 2, &day))
    return false;
  bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > month_days[month - 1] ||
      (month == 2 && day == 29 && !leap))
    return false;
  *ret_days = days_from_civil(year, month, day);
  return true;
}

static bool parse_time(const char **at, const char *end, int64_t *ret_us) {
  unsigned hour, minute, second, micros = 0;
  if (!digits(at, end, 2, &hour) || !literally(at, end, ':') || !digits(at, end, 2, &minute) ||
      !literally(at, end, ':') || !digits(at, end, 2, &second))
    return false;
  if (literally(at, end, '.')) {
    unsigned scale = 100000, count = 0;
    for (; *at != end && **at >= '0' && **at <= '9'; (*at)++, count++, scale /= 10) {
      if (scale == 0 && **at != '0')
        return false; /* finer than a microsecond */
      micros += (unsigned)(**at - '0') * scale;
    }
    if (count == 0)
      return false;
  }
  if (hour > 23 || minute > 59 || second > 59)
    return false;
  *ret_us = (int64_t)(hour * 3600 + minute * 60 + second) * US_PER_SECOND + micros;
  return true;
}

/* "Z", or the clock's offset from UTC: "+02:00", "-03:30". */
static bool parse_offset(const char **at, const char *end, int64_t *ret_us) {
  unsigned hours, minutes;
  *ret_us = 0;
  if (literally(at, end, 'Z'))
    return true;
  bool behind = *at != end && **at == '-';
  if (!behind && (*at == end || **at != '+'))
    return false;
  (*at)++;
  if (!digits(at, end, 2, &hours) || !literally(at, end, ':') || !digits(at, end, 2, &minutes) ||
      hours > 23 || minutes > 59)
    return false;
  *ret_us = (int64_t)(hours * 3600 + minutes * 60) * US_PER_SECOND * (behind ? -1 : 1);
  return true;
}

bool datetime_parse(const char *text, size_t length, bool time, int64_t *ret_us) {
  const char *at = text, *end = text + length;
  int64_t days, us = 0, offset = 0;
  if (!parse_date(&at, end, &days))
    return false;
  if (time && (!(literally(&at, end, 'T') || literally(&at, end, ' ')) ||
               !parse_time(&at, end, &us) || !parse_offset(&at, end, &offset)))
    return false;
  if (at != end)
    return false;
  us += days * us_per_day - offset;
  if (!datetime_fits_column(us / 1000 - (us % 1000 < 0)))
    return false;
  *ret_us = us;
  return true;
}

const char *duration_text(int64_t ms, char text[static DURATION_TEXT_SIZE]) {
  long long s = ms / 1000, min = s / 60, h = min / 60, d = h / 24;
  if (ms < 1000)
    g_snprintf(text, DURATION_TEXT_SIZE, "%lld ms", (long long)ms);
  else if (s < 10)
    g_snprintf(text, DURATION_TEXT_SIZE, "%lld.%lld s", s, (long long)(ms % 1000 / 100));
  else if (min < 1)
    g_snprintf(text, DURATION_TEXT_SIZE, "%lld s", s);
  else if (h < 1)
    g_snprintf(text, DURATION_TEXT_SIZE, "%lld min %lld s", min, s % 60);
  else if (d < 1)
    g_snprintf(text, DURATION_TEXT_SIZE, "%lld h %lld min", h, min % 60);
  else
    g_snprintf(text, DURATION_TEXT_SIZE, "%lld d %lld h", d, h % 24);
  return text;
}
