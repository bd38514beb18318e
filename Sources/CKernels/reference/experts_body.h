// The router of a mixture of experts, and the assignment of rows to experts. All levels share this code: one row is
// only a few hundred numbers.
#pragma once

#include <string.h>

#include "../include/experts.h"
#include "math.h"
#include "order.h"

/// Returns the index of the largest key, the smallest index among equals.
static inline int64_t largest_key(const uint32_t *keys, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) best = keys[i] > keys[best] ? i : best;
    return best;
}

/// Sets the `taken` flags of the `count` largest of `values`, ties to the smaller index. `keys` is overwritten.
/// Keys are shifted up by one so that 0 means "already taken", below a NaN.
static inline void take_largest(const float *values, uint32_t *keys, bool *taken, int64_t n, int64_t count) {
    for (int64_t i = 0; i < n; i++) {
        keys[i] = order_key(values[i]) + 1;
        taken[i] = false;
    }
    for (int64_t c = 0; c < count; c++) {
        int64_t best = largest_key(keys, n);
        taken[best] = true;
        keys[best] = 0;
    }
}

/// Returns the sum of a group's two largest values, the larger first; of a single expert, its value.
static inline float group_score(const float *values, uint32_t *keys, int64_t n) {
    for (int64_t i = 0; i < n; i++) keys[i] = order_key(values[i]) + 1;
    int64_t first = largest_key(keys, n);
    if (n == 1) return values[first];
    keys[first] = 0;
    return values[first] + values[largest_key(keys, n)];
}

static inline float gate_score(braid_scoring scoring, float logit) {
    return scoring == BRAID_SQRT_SOFTPLUS ? sqrtf(softplus_scalar(logit)) : 1.0f / (1.0f + exp_scalar(-logit));
}

/// Replaces the scores of a row's experts by their weights; `sum` is the sum of the scores.
static inline void weigh_choices(const braid_gate *p, float sum, float *weights) {
    for (int64_t j = 0; j < p->k; j++)
        weights[j] = (p->normalize ? weights[j] / (sum + 1e-20f) : weights[j]) * p->scaling;
}

static inline bool has_nan(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (x[i] != x[i]) return true;
    return false;
}

static inline void weigh_given(const braid_gate *p, const float *logits, const int32_t *chosen, float *weights) {
    float sum = 0;
    for (int64_t j = 0; j < p->k; j++) {
        weights[j] = gate_score(p->scoring, logits[chosen[j]]);
        sum = sum + weights[j];
    }
    weigh_choices(p, sum, weights);
}

static inline void gate_row(const braid_gate *p, const float *logits, int32_t *chosen, float *weights) {
    float score[BRAID_MAX_EXPERTS], choice[BRAID_MAX_EXPERTS], groups[BRAID_MAX_EXPERTS];
    uint32_t keys[BRAID_MAX_EXPERTS];
    bool taken[BRAID_MAX_EXPERTS];
    for (int64_t e = 0; e < p->experts; e++) {
        score[e] = gate_score(p->scoring, logits[e]);
        choice[e] = p->bias ? score[e] + p->bias[e] : score[e];
    }
    int64_t candidates = p->experts;
    int32_t index[BRAID_MAX_EXPERTS];
    for (int64_t e = 0; e < p->experts; e++) index[e] = (int32_t)e;
    if (p->groups > 1) {
        int64_t size = p->experts / p->groups;
        for (int64_t g = 0; g < p->groups; g++) groups[g] = group_score(choice + g * size, keys, size);
        take_largest(groups, keys, taken, p->groups, p->top_groups);
        candidates = 0;
        for (int64_t g = 0; g < p->groups; g++) {
            for (int64_t e = g * size; taken[g] && e < (g + 1) * size; e++) {
                index[candidates] = (int32_t)e;
                choice[candidates++] = choice[e];
            }
        }
    }
    take_largest(choice, keys, taken, candidates, p->k);
    int64_t count = 0;
    float sum = 0;
    for (int64_t i = 0; i < candidates; i++) {
        if (!taken[i]) continue;
        chosen[count] = index[i];
        sum = sum + score[index[i]];
        weights[count++] = score[index[i]];
    }
    weigh_choices(p, sum, weights);
}

static inline void gate_rows(const braid_gate *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *logits = p->logits + r * p->logits_stride;
        float *weights = p->weights + r * p->k;
        if (p->given) weigh_given(p, logits, p->chosen + r * p->k, weights);
        else gate_row(p, logits, p->chosen + r * p->k, weights);
        const bool broken = has_nan(logits, p->experts);
        for (int64_t j = 0; broken && j < p->k; j++) weights[j] = NAN;
    }
}

static inline void group_by_expert_rows(const braid_group_by_expert *p) {
    int32_t next[BRAID_MAX_EXPERTS];
    for (int64_t e = 0; e <= p->experts; e++) p->start[e] = 0;
    for (int64_t pair = 0; pair < p->m * p->k; pair++) {
        int64_t e = p->chosen[pair] - p->first;
        if (e >= 0 && e < p->experts) p->start[e + 1]++;
    }
    for (int64_t e = 0; e < p->experts; e++) {
        next[e] = p->start[e];
        p->start[e + 1] += p->start[e];
    }
    for (int64_t pair = 0; pair < p->m * p->k; pair++) {
        int64_t e = p->chosen[pair] - p->first;
        p->slots[pair] = -1;
        if (e < 0 || e >= p->experts) continue;
        int32_t slot = next[e]++;
        p->rows[slot] = (int32_t)(pair / p->k);
        p->slot_weights[slot] = p->weights[pair];
        p->slots[pair] = slot;
    }
}

static inline bool visits(const braid_dispatch *p, int64_t row, int64_t place) {
    for (int64_t j = 0; j < p->k; j++) {
        int32_t expert = p->chosen[row * p->k + j];
        if (expert >= p->bounds[place] && expert < p->bounds[place + 1]) return true;
    }
    return false;
}

static inline void dispatch_rows(const braid_dispatch *p) {
    int32_t next = 0, *rows = p->rows;
    for (int64_t place = 0; place < p->places; place++) {
        const int32_t before = next;
        for (int64_t r = 0; r < p->m; r++) {
            const bool goes = visits(p, r, place);
            p->slots[r * p->places + place] = goes ? next : -1;
            if (goes) rows[next++ - before] = (int32_t)r;
        }
        const int64_t count = p->counts[place] = next - before;
        for (int64_t copy = 1; copy < p->copies; copy++)
            memcpy(rows + copy * count, rows, (size_t)count * sizeof *rows);
        rows += p->copies * count;
    }
}
