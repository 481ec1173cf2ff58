/* literal.c - writes SQL literals. */
#include "projector/infra/mysql/literal.h"

#include "projector/domain/datetime.h"

static bool is_plain(const uint8_t *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) {
    uint8_t c = bytes[i];
    if (!(g_ascii_isalnum(c) || c == ' ' || c == '-' || c == '_' || c == '.' || c == ',' ||
          c == ':' || c == '@' || c == '/' || c == '+'))
      return false;
  }
  return true;
}

static void append_hex(GString *sql, const uint8_t *bytes, size_t length) {
  static const char digits[] = "0123456789ABCDEF";
  size_t start = sql->len;
  g_string_set_size(sql, start + 2 * length);
  for (size_t i = 0; i < length; i++) {
    sql->str[start + 2 * i] = digits[bytes[i] >> 4];
    sql->str[start + 2 * i + 1] = digits[bytes[i] & 15];
  }
}

static void append_quoted(GString *sql, const char *prefix, const void *bytes, size_t length,
                          bool hex) {
  g_string_append(sql, prefix);
  g_string_append_c(sql, '\'');
  if (hex)
    append_hex(sql, bytes, length);
  else
    g_string_append_len(sql, bytes, (gssize)length);
  g_string_append_c(sql, '\'');
}

void literal_append_text(GString *sql, const void *bytes, size_t length) {
  bool hex = !is_plain(bytes, length);
  append_quoted(sql, hex ? "_utf8mb4 X" : "", bytes, length, hex);
}

void literal_append_binary(GString *sql, const void *bytes, size_t length) {
  append_quoted(sql, "X", bytes, length, true);
}

void literal_append_bytes(GString *sql, const void *bytes, size_t length) {
  bool hex = !is_plain(bytes, length);
  append_quoted(sql, hex ? "X" : "", bytes, length, hex);
}

void literal_append_name(GString *sql, const char *name) {
  g_string_append_c(sql, '`');
  g_string_append(sql, name);
  g_string_append_c(sql, '`');
}

void literal_append(GString *sql, const Value *value) {
  char text[64];
  size_t length;
  switch (value->kind) {
  case VALUE_NULL: g_string_append(sql, "NULL"); return;
  case VALUE_INT: g_string_append_printf(sql, "%" G_GINT64_FORMAT, value->integer); return;
  case VALUE_UINT: g_string_append_printf(sql, "%" G_GUINT64_FORMAT, value->natural); return;
  case VALUE_DOUBLE: /* 17 digits and an exponent: an exact DOUBLE, not a DECIMAL */
    g_string_append(sql, g_ascii_formatd(text, sizeof text, "%.16e", value->real));
    return;
  case VALUE_DECIMAL: g_string_append_len(sql, value->text, value->length); return;
  case VALUE_TEXT: literal_append_text(sql, value->text, value->length); return;
  case VALUE_BINARY: literal_append_binary(sql, value->bytes, value->length); return;
  case VALUE_DATE:
    length = datetime_format(value->us, 0, text);
    append_quoted(sql, "DATE", text, length - 9, false); /* without " 00:00:00" */
    return;
  case VALUE_DATETIME:
    length = datetime_format(value->us, value->length, text);
    append_quoted(sql, "TIMESTAMP", text, length, false);
    return;
  }
}
