/* finding.c - a list of findings. */
#include "projector/infra/finding.h"

static void finding_free(gpointer data) {
  Finding *finding = data;
  g_free(finding->text);
  g_free(finding);
}

GPtrArray *findings_new(void) {
  return g_ptr_array_new_with_free_func(finding_free);
}

void finding_add(GPtrArray *findings, bool error, const char *format, ...) {
  Finding *finding = g_new0(Finding, 1);
  va_list arguments;
  va_start(arguments, format);
  *finding = (Finding){error, g_strdup_vprintf(format, arguments)};
  va_end(arguments);
  g_ptr_array_add(findings, finding);
}
