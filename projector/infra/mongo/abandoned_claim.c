/* abandoned_claim.c - a claim of a former owner, once it has been read. */
#include "projector/infra/mongo/claims.h"

static void free_event(gpointer event) {
  event_free(event);
}

AbandonedClaim *abandoned_claim_new(bson_t *document) {
  AbandonedClaim *claim = g_new0(AbandonedClaim, 1);
  claim->document = document;
  claim->events = g_ptr_array_new_with_free_func(free_event);
  return claim;
}

void abandoned_claim_free(AbandonedClaim *claim) {
  if (!claim)
    return;
  bson_destroy(claim->document);
  g_ptr_array_unref(claim->events);
  g_free(claim);
}

static void free_claim(gpointer claim) {
  abandoned_claim_free(claim);
}

void abandoned_claims_own(GPtrArray *claims) {
  g_ptr_array_set_free_func(claims, free_claim);
}
