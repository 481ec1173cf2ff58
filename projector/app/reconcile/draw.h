/* draw.h - entities chosen at random, each at most once. */
#pragma once

#include "projector/infra/mongo/entities.h"

typedef struct Draw Draw;

/* Draws `size` entities; all of them, if there are no more. */
Draw *draw_new(Entities *entities, int64_t size);
void draw_free(Draw *draw);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Draw, draw_free)

/* The next ones, at most `page`; none: it is done. */
bool draw_page(Draw *draw, unsigned page, GPtrArray *documents, Failure *ret_failure);
