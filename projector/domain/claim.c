/* claim.c - the thresholds of claims: by the batch or alone, outdated, slow, spent. */
#include "projector/domain/claim.h"

enum { ALONE_FROM = 2 };

bool claim_goes_by_batch(const Event *event) {
  return event->status == STATUS_PENDING && event->attempts == 0;
}

bool claim_is_outdated(int64_t read_at, int64_t stalled_until) {
  return read_at == 0 || read_at < stalled_until;
}

bool claim_has_changed(const Event *read, const Event *found) {
  return found->status != STATUS_IN_PROGRESS &&
         (found->status != read->status || found->attempts != read->attempts);
}

bool claim_is_slow(int64_t claimed_at, int64_t now, int64_t mark_ms) {
  return now - claimed_at >= mark_ms * 1000;
}

bool claim_comes_alone(int attempts) {
  return attempts >= ALONE_FROM;
}

bool claim_runs_alone(const Event *event) {
  return event->status != STATUS_FAILED && claim_comes_alone(event->attempts);
}

bool claim_is_spent(const Event *event, int64_t max_attempts) {
  return event->attempts >= max_attempts && claim_comes_alone(event->attempts - 1) &&
         !event->retried;
}
