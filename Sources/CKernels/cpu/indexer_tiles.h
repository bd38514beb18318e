// The lightning indexer in the BF16 profile on tiles. Sixteen keys, widened as they are stored, are an A tile and
// sixteen heads' queries a B tile, so that keys are not transposed. Of their dot products, a row is a key's and a lane
// a head's: the lanes are the sixteen accumulators over heads, and heads are added a vector at a time.
#pragma once

#include "indexer_bf16.h"
#include "matmul_tiles.h"

#define BRAID_INDEX_HEADS 64              // heads whose dot products are computed side by side, in four tiles
#define BRAID_INDEX_QUERIES (128 * 1024)  // floats of scratch for queries
#define BRAID_INDEX_BLOCK 64              // this many times sixteen keys are widened before all queries run over them
#define BRAID_INDEX_RING 4                // room for this many is enough for a single row, which follows the widening
#define BRAID_INDEX_AHEAD 64              // keys are prefetched this many ahead
#define BRAID_USUAL_TILES 4               // the tiles of a key of the usual width, 128

/// A call's tiles in scratch.
typedef struct {
    const braid_index_scores *p;
    braid_scaled_codes codes;
    int64_t k_tiles;
    int64_t slots;   // for how many times sixteen keys there is room; key i is in slot i / 16 % slots
    char *queries;   // [row][64 heads][k_tiles][tiles]
    char *keys;      // [slot][k_tiles]
    float *factors;  // [slot][16], see score_factor
    float *sums;     // [slot][16 keys][16], accumulators of a row of which only some heads have been added
} braid_index_tiles;

BRAID_INLINE int64_t query_bytes(const braid_index_tiles *t) { return 4 * t->k_tiles * BRAID_TILE_BYTES; }

/// Returns the type of keys that are widened fastest: FP4 with a scale for each tile, FP8 with one scale, or BF16, of the
/// usual width. Returns F32 for others.
BRAID_INLINE braid_dtype usual_type(const braid_lane *keys) {
    if (keys->width != BRAID_USUAL_TILES * BRAID_TILE_K) return BRAID_F32;
    if (keys->dtype == BRAID_FP4) return keys->group == BRAID_TILE_K ? BRAID_FP4 : BRAID_F32;
    return keys->dtype == BRAID_BF16 || has_scale_last(keys) ? keys->dtype : BRAID_F32;
}

/// Packs 64 heads of a row, or those that are left from `first` on, as B tiles.
static void pack_query_tiles(const braid_index_tiles *t, int64_t row, int64_t first, char *to) {
    const braid_index_scores *p = t->p;
    const int64_t width = p->keys.width, heads = at_most(p->heads - first, BRAID_INDEX_HEADS);
    const float *q = p->q + (row * p->heads + first) * width;
    u16 v[16];
    for (int64_t k = 0; k < width; k += BRAID_TILE_K)
        for (int64_t h = 0; h < heads; h += 16, to += BRAID_TILE_BYTES) {
            for (int64_t l = 0; l < 16; l++)
                v[l] = h + l < heads ? load_pairs(q + (h + l) * width + k, width - k) : (u16)splat(0);
            transpose16(v);
            memcpy(to, v, sizeof v);
        }
}

/// Returns where `count` keys from `i` on are stored if they follow each other there, or NULL.
BRAID_INLINE const char *keys_in_order(const braid_index_scores *p, int64_t i, int64_t count) {
    const int64_t from = braid_sharded(p->owned, p->first + i), to = braid_sharded(p->owned, p->first + i + count - 1);
    if (to - from != count - 1 || from >> p->page_shift != to >> p->page_shift) return 0;
    return entry_at(&p->keys, entry_of(p->pages, p->page_shift, from));
}

/// Finds sixteen keys from `i` on, of which `lanes` exist, and prefetches later ones.
static void find_keys(const braid_index_scores *p, int64_t i, int64_t lanes, const char *rows[16]) {
    const int64_t bytes = entry_bytes(&p->keys);
    const int64_t later = i + BRAID_INDEX_AHEAD;
    const char *data = lanes == 16 ? keys_in_order(p, i, 16) : 0;
    for (int64_t l = 0; l < 16; l++)
        rows[l] = data ? data + l * bytes : entry_at(&p->keys, key_entry(p, i + at_most(l, lanes - 1)));
    const char *ahead = later + 16 <= p->count ? keys_in_order(p, later, 16) : 0;
    if (ahead)
        for (int64_t at = 0; at < 16 * bytes; at += 64) __builtin_prefetch(ahead + at, 0, 3);
    else
        for (int64_t l = later; l < at_most(later + 16, p->count); l++)
            fetch_entry(&p->keys, entry_at(&p->keys, key_entry(p, l)));
}

/// Widens 32 elements of a key from `k` on, and fills with zeros.
BRAID_INLINE u16 widen_key_terms(const braid_lane *keys, const char *key, int64_t k) {
    f16 v[2] = {splat(0), splat(0)};
    if (keys->dtype == BRAID_F32) return load_pairs((const float *)key + k, keys->width - k);
    for (int i = 0; i < 2 && k < keys->width; i++, k += 16) {
        const bool is_scaled = braid_lane_has_scales(keys->dtype) && !has_scale_last(keys);
        const f16 scale = splat(is_scaled ? entry_scale(keys, key, k / keys->group) : 1);
        const int64_t n = lanes_left(keys->width - k);
        f16 widened = keys->dtype == BRAID_FP4 ? widen_fp4_row(key + k / 2, 0, n, scale)
                                               : widen_row(keys->dtype, key + k * bytes_of(keys->dtype), n, scale);
        // The fill must not become NaN where the scale is infinite.
        v[i] = (f16)_mm512_maskz_mov_ps((__mmask16)(0xFFFF >> (16 - n)), (__m512)widened);
    }
    return bf16_pairs(v[0], v[1]);
}

BRAID_FLUSHING void widen_key_flushed(const braid_lane *keys, const char *key, char *to) {
    for (int i = 0; i < BRAID_USUAL_TILES; i++, to += BRAID_TILE_BYTES) {
        u16 terms = widen_key_terms(keys, key, i * BRAID_TILE_K);
        memcpy(to, &terms, sizeof terms);
    }
}

/// Widens a usual FP4 key that has scales which widen_fp4_terms does not take.
static __attribute__((noinline)) void widen_rare_key(const braid_lane *keys, const char *key, char *to) {
    const unsigned before = begin_flushing();
    widen_key_flushed(keys, key, to);
    end_flushing(before);
}

/// Widens 128 elements of a key to rows of four A tiles, the first of which is at `to`.
BRAID_INLINE void widen_usual_key(braid_dtype dtype, const braid_index_tiles *t, const char *key, char *to) {
    if (dtype == BRAID_FP4) {
        const char *scales = key + scale_offset(&t->p->keys, 0);
        if (!widen_fp4_terms(key, (const uint8_t *)scales, to)) widen_rare_key(&t->p->keys, key, to);
        return;
    }
    BRAID_UNROLL for (int i = 0; i < 2; i++, to += 2 * BRAID_TILE_BYTES) {
        __m512i terms[2];
        if (dtype == BRAID_FP8) widen_64_codes(&t->codes, key + 64 * i, terms);
        else memcpy(terms, key + 128 * i, sizeof terms);
        _mm512_store_si512(to, terms[0]);
        _mm512_store_si512(to + BRAID_TILE_BYTES, terms[1]);
    }
}

/// Widens a quarter of sixteen usual keys into a slot.
BRAID_INLINE void widen_quarter(
    braid_dtype dtype, const braid_index_tiles *t, const char *const *rows, int64_t slot, int quarter
) {
    char *to = t->keys + slot * BRAID_USUAL_TILES * BRAID_TILE_BYTES;
    BRAID_UNROLL for (int l = 4 * quarter; l < 4 * quarter + 4; l++) {
        widen_usual_key(dtype, t, rows[l], to + 64 * l);
        t->factors[16 * slot + l] = dtype == BRAID_FP8 ? entry_scale(&t->p->keys, rows[l], 0) : 1;
    }
}

/// Widens the keys `i ..< end` into the slots from the first on. Where a key has several scales, its elements are
/// products.
BRAID_FLUSHING void widen_keys(const braid_index_tiles *t, int64_t i, int64_t end) {
    const char *rows[16];
    for (int64_t slot = 0; i < end; i += 16, slot++) {
        char *to = t->keys + slot * t->k_tiles * BRAID_TILE_BYTES;
        find_keys(t->p, i, lanes_left(end - i), rows);
        for (int64_t l = 0; l < 16; l++) {
            t->factors[16 * slot + l] = score_factor(&t->p->keys, rows[l]);
            for (int64_t k = 0; k < t->k_tiles; k++) {
                u16 terms = widen_key_terms(&t->p->keys, rows[l], k * BRAID_TILE_K);
                memcpy(to + k * BRAID_TILE_BYTES + 64 * l, &terms, 64);
            }
        }
    }
}

/// Some heads of a row, and the keys that they run over.
typedef struct {
    int64_t row, first, count;  // BRAID_INDEX_HEADS at most
    int64_t begin, end;         // keys
    const char *queries;        // B tiles
    braid_dtype widens;         // the type of usual keys that are widened on the way, or BRAID_F32
} braid_index_run;

/// Continues the accumulators of a key with its dot products.
BRAID_INLINE f16 add_key_heads(int tiles, const float *dots, const f16 *weights, __mmask16 last, f16 sum) {
    BRAID_UNROLL for (int i = 0; i < tiles; i++) {
        // The second operand is the result if one is NaN, and if both are zeros.
        __m512 dot = _mm512_max_ps(_mm512_setzero_ps(), _mm512_load_ps(dots + 256 * i));
        if (i == tiles - 1) sum = (f16)_mm512_mask3_fmadd_ps((__m512)weights[i], dot, (__m512)sum, last);
        else sum = fma16(weights[i], (f16)dot, sum);
    }
    return sum;
}

/// Continues the accumulators of keys `e`, `e + 4`, `e + 8`, `e + 12`. Returns, in a quarter for each of these keys,
/// the sums of accumulators l and l + 8, then l + 4, which mean something once all heads are added. `tiles` and
/// `is_usual` are constants.
BRAID_INLINE f16 add_four_keys(
    int tiles, bool is_usual, const braid_index_run *run, const float *dots, const f16 *weights, __mmask16 last, int e,
    float *kept
) {
    f16 s[4];
    BRAID_UNROLL for (int i = 0; i < 4; i++) {
        const int key = e + 4 * i;
        f16 sum = is_usual || run->first == 0 ? splat(0) : load16(kept + 16 * key);
        s[i] = add_key_heads(tiles, dots + 16 * key, weights, last, sum);
        if (!is_usual) store16(kept + 16 * key, s[i]);
    }
    f16 a = __builtin_shufflevector(s[0], s[1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
        + __builtin_shufflevector(s[0], s[1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    f16 b = __builtin_shufflevector(s[2], s[3], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
        + __builtin_shufflevector(s[2], s[3], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
        + __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

/// Adds what add_four_keys returned for `e` 0 ... 3: lanes l and l + 2, then l + 1 of each quarter. Lane i is key i's.
BRAID_INLINE f16 add_quarters(const f16 v[4]) {
    f16 s[2];
    BRAID_UNROLL for (int i = 0; i < 2; i++) {
        f16 a = v[2 * i], b = v[2 * i + 1];
        s[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
            + __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    return __builtin_shufflevector(s[0], s[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30)
        + __builtin_shufflevector(s[0], s[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
}

/// Begins the dot products of sixteen keys, with the tiles of their and the queries' first terms. Each tile register
/// is stored to `before`, as it is after the previous sixteen keys, right before it is used again: so its store waits
/// beside the dot products of others. `tiles` is a constant.
BRAID_INLINE void begin_dots(int tiles, const char *keys, const char *queries, float *before) {
    _tile_loadd(4, keys, 64);
    _tile_loadd(5, queries, 64);
    _tile_stored(0, before, 64);
    _tile_zero(0);
    _tile_dpbf16ps(0, 4, 5);
    if (tiles > 1) {
        _tile_loadd(6, queries + BRAID_TILE_BYTES, 64);
        _tile_stored(1, before + 256, 64);
        _tile_zero(1);
        _tile_dpbf16ps(1, 4, 6);
    }
    if (tiles > 2) {
        _tile_loadd(5, queries + 2 * BRAID_TILE_BYTES, 64);
        _tile_stored(2, before + 512, 64);
        _tile_zero(2);
        _tile_dpbf16ps(2, 4, 5);
    }
    if (tiles > 3) {
        _tile_loadd(6, queries + 3 * BRAID_TILE_BYTES, 64);
        _tile_stored(3, before + 768, 64);
        _tile_zero(3);
        _tile_dpbf16ps(3, 4, 6);
    }
}

/// What a turn of a run does; see score_run.
typedef struct {
    bool multiplies, adds, widens;
    const char *keys, *queries;  // A tiles and B tiles of the turn
    float *before;               // where the dot products of the turn before go
    const float *dots;           // those of the turn before that one, and its keys' accumulators
    float *sums;
    int64_t slot_after;          // where the next keys are widened to
    const char *keys_after[16];
} braid_index_turn;

/// Computes part `k` of a turn. `tiles`, `is_usual`, and `widens` are constants, as in score_run.
BRAID_INLINE void run_part(
    int tiles, bool is_usual, braid_dtype widens, const braid_index_tiles *t, const braid_index_run *run,
    const braid_index_turn *turn, const f16 *weights, __mmask16 last, int64_t k, f16 partial[4]
) {
    const int64_t depth = is_usual ? BRAID_USUAL_TILES : t->k_tiles;
    const char *keys = turn->keys + k * BRAID_TILE_BYTES, *queries = turn->queries + k * tiles * BRAID_TILE_BYTES;
    if (turn->multiplies && k == 0) begin_dots(tiles, keys, queries, turn->before);
    else if (turn->multiplies && k < depth) add_tile_products(false, tiles, keys, 64, queries);
    if (k >= 4) return;
    if (turn->adds) partial[k] = add_four_keys(tiles, is_usual, run, turn->dots, weights, last, (int)k, turn->sums);
    if (widens != BRAID_F32 && turn->widens) widen_quarter(widens, t, turn->keys_after, turn->slot_after, (int)k);
}

/// Computes the scores of a run, sixteen keys in a turn. While tiles are multiplied, those of the turn before are
/// stored, the heads of the turn before that one are added, and the keys of the next one are widened. `tiles`,
/// `is_usual`, whether keys have the usual width and these are all heads of the row, and `widens` are constants.
BRAID_INLINE void score_run(
    int tiles, bool is_usual, braid_dtype widens, const braid_index_tiles *t, const braid_index_run *run
) {
    const braid_index_scores *p = t->p;
    const int64_t turns = (run->end - run->begin + 15) / 16;
    const __mmask16 last = (__mmask16)(0xFFFF >> (16 * tiles - run->count));
    float dots[2][4 * 256] __attribute__((aligned(64)));
    f16 weights[4], partial[4];
    for (int i = 0; i < tiles; i++)
        weights[i] = load_some(p->weights + run->row * p->heads + run->first + 16 * i, lanes_left(run->count - 16 * i));
    braid_index_turn turn = {.queries = run->queries};
    if (widens != BRAID_F32) {
        find_keys(p, run->begin, lanes_left(run->end - run->begin), turn.keys_after);
        for (int e = 0; e < 4; e++) widen_quarter(widens, t, turn.keys_after, 0, e);
    }
    for (int64_t u = 0, slot = 0; u < turns + 2; u++, slot = turn.slot_after) {
        const int64_t i = run->begin + 16 * u, added = slot < 2 ? slot + t->slots - 2 : slot - 2;
        turn.multiplies = u < turns;
        turn.adds = u >= 2;
        turn.keys = t->keys + slot * (is_usual ? BRAID_USUAL_TILES : t->k_tiles) * BRAID_TILE_BYTES;
        turn.before = dots[(u - 1) & 1];
        turn.dots = dots[u & 1];
        turn.sums = t->sums + 256 * added;
        turn.slot_after = slot + 1 < t->slots ? slot + 1 : 0;
        turn.widens = widens != BRAID_F32 && i + 16 < run->end;
        if (turn.widens) find_keys(p, i + 16, lanes_left(run->end - i - 16), turn.keys_after);
        if (u == turns) store_tiles(tiles, dots[(u - 1) & 1]);
        if (is_usual)
            BRAID_UNROLL for (int k = 0; k < BRAID_USUAL_TILES; k++)
                run_part(tiles, true, widens, t, run, &turn, weights, last, k, partial);
        else
            for (int64_t k = 0; k < t->k_tiles || k < 4; k++)
                run_part(tiles, false, widens, t, run, &turn, weights, last, k, partial);
        if (!turn.adds || (!is_usual && run->first + run->count < p->heads)) continue;
        float *scores = p->scores + run->row * p->scores_stride + i - 32;
        store_some(scores, add_quarters(partial) * load16(t->factors + 16 * added), lanes_left(run->end - i + 32));
    }
}

static void score_heads(const braid_index_tiles *t, const braid_index_run *run) {
    const int64_t tiles = (run->count + 15) / 16;
    if (run->widens == BRAID_FP8) {
        BRAID_FOR_TILES(tiles, score_run, true, BRAID_FP8, t, run)
    } else if (run->widens == BRAID_FP4) {
        BRAID_FOR_TILES(tiles, score_run, true, BRAID_FP4, t, run)
    } else if (run->widens == BRAID_BF16) {
        BRAID_FOR_TILES(tiles, score_run, true, BRAID_BF16, t, run)
    } else if (run->count == t->p->heads && t->k_tiles == BRAID_USUAL_TILES) {
        BRAID_FOR_TILES(tiles, score_run, true, BRAID_F32, t, run)
    } else {
        BRAID_FOR_TILES(tiles, score_run, false, BRAID_F32, t, run)
    }
}

/// Computes the scores of rows `first ..< end`, whose queries fit scratch, for `block` keys at a time.
static void score_rows(const braid_index_tiles *t, int64_t first, int64_t end, int64_t block) {
    const braid_index_scores *p = t->p;
    const int64_t groups = (p->heads + BRAID_INDEX_HEADS - 1) / BRAID_INDEX_HEADS;
    const braid_dtype usual = groups == 1 ? usual_type(&p->keys) : BRAID_F32;
    for (int64_t r = first; r < end; r++)
        for (int64_t g = 0; g < groups; g++)
            pack_query_tiles(t, r, g * BRAID_INDEX_HEADS, t->queries + ((r - first) * groups + g) * query_bytes(t));
    for (int64_t i = 0; i < p->count; i += block) {
        const int64_t end_key = at_most(i + block, p->count);
        braid_index_run run = {.begin = i, .end = end_key, .queries = t->queries, .widens = usual};
        if (usual == BRAID_F32) {
            const unsigned before = begin_flushing();
            widen_keys(t, i, run.end);
            end_flushing(before);
        }
        for (run.row = first; run.row < end; run.row++)
            for (run.first = 0; run.first < p->heads; run.first += BRAID_INDEX_HEADS) {
                run.count = at_most(p->heads - run.first, BRAID_INDEX_HEADS);
                score_heads(t, &run);
                run.widens = BRAID_F32;
                run.queries += query_bytes(t);
            }
    }
}

static void tiles_index_scores(const braid_index_scores *p) {
    const bool is_empty = p->m == 0 || p->count == 0 || p->heads == 0 || p->keys.width == 0;
    if (p->profile == BRAID_PROFILE_F32 || is_empty) return index_scores(p);
    braid_index_tiles t = {.p = p, .k_tiles = (p->keys.width + BRAID_TILE_K - 1) / BRAID_TILE_K};
    const int64_t groups = (p->heads + BRAID_INDEX_HEADS - 1) / BRAID_INDEX_HEADS;
    const int64_t rows = BRAID_INDEX_QUERIES * 4 / (groups * query_bytes(&t));
    if (rows == 0) return index_scores(p);  // not even one row's queries fit
    // A slot has the tiles of its keys, a tile of accumulators, and sixteen factors.
    const int64_t room = (BRAID_INDEX_SCRATCH - BRAID_INDEX_QUERIES) * 4 / ((t.k_tiles + 1) * BRAID_TILE_BYTES + 64);
    const bool is_one_run = p->m * groups == 1 && usual_type(&p->keys) != BRAID_F32;
    const int64_t most = p->index_key_tiles > 0 ? p->index_key_tiles * BRAID_PANEL : BRAID_INDEX_BLOCK;
    t.slots = at_most(room, is_one_run ? BRAID_INDEX_RING : most);
    t.queries = (char *)p->scratch;
    t.keys = (char *)(p->scratch + BRAID_INDEX_QUERIES);
    t.sums = (float *)(t.keys + t.slots * t.k_tiles * BRAID_TILE_BYTES);
    t.factors = t.sums + t.slots * 256;
    begin_tiles();
    fill_codes(&t.codes, 1);
    for (int64_t r = 0; r < p->m; r += rows)
        score_rows(&t, r, at_most(r + rows, p->m), is_one_run ? p->count : 16 * t.slots);
    end_tiles();
}
