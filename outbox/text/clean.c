// Escapes characters that a terminal would act upon.
#include "outbox/text/clean.h"

#include <string.h>

bool is_hidden_character(gunichar c) {
  static const struct {
    gunichar first, last;
  } ranges[] = {
      {0, 0x1F},        {0x7F, 0x9F},     {0x61C, 0x61C},   {0x200E, 0x200F},
      {0x2028, 0x202E}, {0x2060, 0x2069}, {0x206A, 0x206F}, {0xFEFF, 0xFEFF},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++)
    if (c >= ranges[i].first && c <= ranges[i].last)
      return true;
  return false;
}

static void append_escape(GString *to, gunichar c) {
  g_string_append_printf(to, c <= 0xFF ? "\\x%02x" : "\\u%04x", (unsigned)c);
}

void text_append_clean(GString *to, const char *text, const char *also) {
  while (*text) {
    gunichar c = g_utf8_get_char_validated(text, -1);
    if (c == (gunichar)-1 || c == (gunichar)-2) {
      append_escape(to, (unsigned char)*text++);
      continue;
    }
    if (is_hidden_character(c)) {
      append_escape(to, c);
    } else {
      if (c < 0x80 && strchr(also, (int)c))
        g_string_append_c(to, '\\');
      g_string_append_unichar(to, c);
    }
    text = g_utf8_next_char(text);
  }
}

// Whoever wrote the JSON has escaped the ASCII ones up to 0x1f, or they belong to its layout.
char *json_text_clean(const char *text) {
  GString *to = g_string_sized_new(strlen(text) + 32);
  const char *from = text;
  for (const char *at = text; *at; at = g_utf8_next_char(at)) {
    gunichar c = (guchar)*at < 0x7F ? 0 : g_utf8_get_char(at);
    if (!c || !is_hidden_character(c)) {
      continue;
    }
    g_string_append_len(to, from, at - from);
    g_string_append_printf(to, "\\u%04x", (unsigned)c);
    from = g_utf8_next_char(at);
  }
  g_string_append(to, from);
  return g_string_free(to, FALSE);
}
