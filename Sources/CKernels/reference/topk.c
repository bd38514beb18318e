// The exact top k of each row: the k-th largest key is found bit by bit, then one pass over the row selects.
#include "../include/topk.h"

#include "order.h"

static int64_t count_at_least(const float *scores, int64_t n, uint32_t key) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += order_key(scores[i]) >= key;
    return count;
}

static void select_row(const float *scores, int64_t n, int64_t k, int32_t *selected) {
    uint32_t cut = 0;  // the largest key that k scores reach
    for (int bit = 31; bit >= 0; bit--) {
        uint32_t higher = cut | 1u << bit;
        if (count_at_least(scores, n, higher) >= k) cut = higher;
    }
    int64_t above = cut == UINT32_MAX ? 0 : count_at_least(scores, n, cut + 1);
    int64_t ties = k - above;
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = order_key(scores[i]);
        if (key > cut || (key == cut && ties-- > 0)) *selected++ = (int32_t)i;
    }
}

void reference_top_k(const braid_top_k *p) {
    for (int64_t r = 0; r < p->m; r++) {
        int64_t n = p->visible[r], k = n < p->k ? n : p->k;
        p->counts[r] = (int32_t)k;
        if (k > 0) select_row(p->scores + r * p->scores_stride, n, k, p->selected + r * p->selected_stride);
    }
}
