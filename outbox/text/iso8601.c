// Times as text: a strict reader of ISO 8601 with a time zone.
#include "outbox/text/iso8601.h"

#include <string.h>

// Reads exactly `digits` digits.
static bool take_number(const char **text, int digits, int *ret_number) {
  int number = 0;
  for (int i = 0; i < digits; i++) {
    char c = (*text)[i];
    if (c < '0' || c > '9') {
      return false;
    }
    number = number * 10 + (c - '0');
  }
  *text += digits;
  *ret_number = number;
  return true;
}

static bool take_char(const char **text, char wanted) {
  if (**text != wanted) {
    return false;
  }
  (*text)++;
  return true;
}

static int days_in_month(int year, int month) {
  static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return days[month - 1] + (month == 2 && leap);
}

// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's days_from_civil).
static int64_t days_since_epoch(int year, int month, int day) {
  int64_t y = month <= 2 ? year - 1 : year;
  int64_t era = (y >= 0 ? y : y - 399) / 400;
  int64_t year_of_era = y - era * 400;
  int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + day_of_era - 719468;
}

static bool take_seconds(const char **text, int *ret_second, int *ret_ms) {
  *ret_second = 0;
  *ret_ms = 0;
  if (!take_char(text, ':')) {
    return true;
  }
  if (!take_number(text, 2, ret_second)) {
    return false;
  }
  if (!take_char(text, '.')) {
    return true;
  }
  size_t digits = strspn(*text, "0123456789");
  if (digits < 1 || digits > 3 || !take_number(text, (int)digits, ret_ms)) {
    return false;
  }
  *ret_ms *= digits == 1 ? 100 : digits == 2 ? 10 : 1;
  return true;
}

static bool take_zone(const char **text, int *ret_minutes) {
  int hours;
  int minutes;
  *ret_minutes = 0;
  if (take_char(text, 'Z')) {
    return true;
  }
  int sign = **text == '-' ? -1 : 1;
  if (!take_char(text, '+') && !take_char(text, '-')) {
    return false;
  }
  if (!take_number(text, 2, &hours)) {
    return false;
  }
  take_char(text, ':');
  if (!take_number(text, 2, &minutes) || hours > 23 || minutes > 59) {
    return false;
  }
  *ret_minutes = sign * (hours * 60 + minutes);
  return true;
}

bool iso8601_parse(const char *text, int64_t *ret_ms) {
  int year, month, day, hour, minute, second, ms, zone;
  if (!take_number(&text, 4, &year) || !take_char(&text, '-') || !take_number(&text, 2, &month) ||
      !take_char(&text, '-') || !take_number(&text, 2, &day) || !take_char(&text, 'T') ||
      !take_number(&text, 2, &hour) || !take_char(&text, ':') || !take_number(&text, 2, &minute) ||
      !take_seconds(&text, &second, &ms) || !take_zone(&text, &zone) || *text != '\0') {
    return false;
  }
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
      hour > 23 || minute > 59 || second > 59) {
    return false;
  }
  int64_t minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - zone;
  *ret_ms = (minutes * 60 + second) * 1000 + ms;
  return true;
}
