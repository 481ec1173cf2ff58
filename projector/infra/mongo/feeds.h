/* feeds.h - the feeds of an outbox: collections of the same database into which every event is
 * copied, at the latest before it leaves the outbox. Another projector takes a feed as its outbox.
 *
 * The copies carry none of the projector's own fields, and an existing copy is not changed, because
 * its reader may have claimed it. A duplicate copy, after a crash between copy and mark, is
 * recognised by the reader's ledger. Events that stay in the outbox are copied meanwhile and
 * marked: `fed_to` names the feeds, `fed_at` the time; so they are not copied again after the
 * reader's ledger has forgotten them.
 *
 * Without feeds, none of these functions does or sends anything. */
#pragma once

#include "projector/infra/mongo/outbox.h"

/* Copies the events of the outbox that the filter selects into each feed that does not have them,
 * in order, for a majority; and before them what is in the outbox before one of these events in its
 * aggregate: it was applied earlier and waits to be taken out, by a dead owner's acker for example,
 * and belongs before it in the feed too. */
bool feeds_copy_with_earlier(Outbox *outbox, const bson_t *filter, Failure *ret_failure);

/* The same for events in memory that were read whole, so that MongoDB need not read them again. A
 * mark that was set after an event was read is not seen here. */
bool feeds_copy_whole(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure);

/* --- events that stay in the outbox --- */

/* Whether an event is there that not every feed has, and the moment for which that holds (none when
 * there is no outbox). */
bool feeds_look(Outbox *outbox, bool *ret_any, Moment *ret_moment, Failure *ret_failure);

/* Whether an event is there that carries a mark. */
bool feeds_have_marked(Outbox *outbox, bool *ret_any, Failure *ret_failure);

enum { FEED_PAGE = 1000 }; /* events read, and copied, at a time */

/* Those that were there at that moment, in order, without their payload. */
EventCursor *feeds_find(Outbox *outbox, const Moment *moment);

/* Copies and marks those of the events that are there still and not in every feed. `ids` is
 * {"0": id, "1": id …}; `*ret_count` counts what was marked. Returns false with `*ret_copied` when
 * only the marks failed. */
bool feeds_copy_and_mark(Outbox *outbox, const bson_t *ids, int64_t *ret_count, bool *ret_copied,
                         Failure *ret_failure);
/* Marks events that every feed has. */
bool feeds_mark(Outbox *outbox, const bson_t *ids, Failure *ret_failure);

/* For a $set stage: marks an event as being in every feed since `at`, an expression; without feeds
 * it takes such a mark away. */
void feeds_append_mark(const Outbox *outbox, bson_t *set, const char *at);

/* --- for check, status and metrics --- */

typedef struct FeedView {
  char name[256];
  int64_t events;        /* in it, by the collection's own count */
  char reader[65];       /* the projector that takes it as its outbox; "": none ever did */
  bool reader_works;     /* holds its lease */
  int64_t reader_lag_ms; /* how long its oldest event has waited, as reported; negative: unknown */
} FeedView;

/* The projector that copies its events into our outbox: the other end of a feed, so it is looked
 * for without feeds of our own too. */
typedef struct FeedSource {
  char name[65];    /* "": none does, the outbox is no feed */
  char outbox[256]; /* its own; "": unknown */
  bool works;       /* holds its lease */
  int64_t lag_ms;   /* as reported; negative: unknown */
} FeedSource;

bool feeds_find_source(MongoStore *store, FeedSource *ret_source, Failure *ret_failure);

enum { FEEDS_MAX = 16 };

/* The views of all feeds, in the order of the mapping file. */
bool feeds_view(MongoStore *store, FeedView ret_views[static FEEDS_MAX], unsigned *ret_count,
                Failure *ret_failure);
