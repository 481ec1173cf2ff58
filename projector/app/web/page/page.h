/* page.h - the page as one file, put together by embed_page.py. */
#pragma once

#include <stddef.h>

extern const unsigned char page_html[];
extern const size_t page_length;
/* Content-Security-Policy: nothing but what is in the file, by hash, and our own answers. */
extern const char page_policy[];
