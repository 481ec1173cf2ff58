/* page.h - the page as one file, assembled by embed_page.py. */
#pragma once

#include <stddef.h>

extern const unsigned char page_html[];
extern const size_t page_length;
/* Content-Security-Policy: only the file's own script, by hash, and the projector's own
 * endpoints. */
extern const char page_policy[];
