// Tiles of AMX: sixteen rows of 64 bytes in each of eight registers. Only the AMX level includes this.
#pragma once

#include "bf16.h"
#include "tile_state.h"

#define BRAID_TILE_BYTES 1024

/// Returns four quarters as one vector, in registers: a load behind narrower stores would wait for them.
BRAID_INLINE __m512i of_quarters(const __m128i quarters[4]) {
    __m512i v = _mm512_castsi128_si512(quarters[0]);
    v = _mm512_inserti32x4(v, quarters[1], 1);
    v = _mm512_inserti32x4(v, quarters[2], 2);
    return _mm512_inserti32x4(v, quarters[3], 3);
}

/// Returns 32 numbers rounded to BF16, as round_bf16 does.
BRAID_INLINE u16 bf16_pairs(f16 low, f16 high) { return (u16)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }

/// Returns `n` of 32 consecutive numbers rounded to BF16, and zeros beyond.
BRAID_INLINE u16 load_pairs(const float *x, int64_t n) {
    if (n >= 32) return bf16_pairs(load16(x), load16(x + 16));
    if (n >= 16) return bf16_pairs(load16(x), load_some(x + 16, n - 16));
    return bf16_pairs(load_some(x, lanes_left(n)), splat(0));
}

/// Adds the products of an A and a B tile register to a third: of BF16, or of signed bytes to integers if `bytes`. All
/// arguments are constants.
#define BRAID_ADD_TILES(bytes, sum, a, b) \
    do { \
        if (bytes) _tile_dpbssd(sum, a, b); \
        else _tile_dpbf16ps(sum, a, b); \
    } while (0)

/// Adds the products of the A tile at `a`, rows of which are `stride` bytes apart, with `tiles` B tiles at `b` to tile
/// registers 0 ..< tiles. `bytes` and `tiles` are constants where this is inlined.
BRAID_INLINE void add_tile_products(bool bytes, int tiles, const void *a, int64_t stride, const char *b) {
    _tile_loadd(4, a, stride);
    _tile_loadd(5, b, 64);
    BRAID_ADD_TILES(bytes, 0, 4, 5);
    if (tiles > 1) {
        _tile_loadd(6, b + BRAID_TILE_BYTES, 64);
        BRAID_ADD_TILES(bytes, 1, 4, 6);
    }
    if (tiles > 2) {
        _tile_loadd(5, b + 2 * BRAID_TILE_BYTES, 64);
        BRAID_ADD_TILES(bytes, 2, 4, 5);
    }
    if (tiles > 3) {
        _tile_loadd(6, b + 3 * BRAID_TILE_BYTES, 64);
        BRAID_ADD_TILES(bytes, 3, 4, 6);
    }
}

/// Sets tile registers 0 ..< tiles to zero.
BRAID_INLINE void zero_tiles(int tiles) {
    _tile_zero(0);
    if (tiles > 1) _tile_zero(1);
    if (tiles > 2) _tile_zero(2);
    if (tiles > 3) _tile_zero(3);
}

/// Loads tile registers 0 ..< tiles from consecutive tiles of memory.
BRAID_INLINE void load_tiles(int tiles, const float *from) {
    _tile_loadd(0, from, 64);
    if (tiles > 1) _tile_loadd(1, from + 256, 64);
    if (tiles > 2) _tile_loadd(2, from + 512, 64);
    if (tiles > 3) _tile_loadd(3, from + 768, 64);
}

/// Stores tile registers 0 ..< tiles to consecutive tiles of memory.
BRAID_INLINE void store_tiles(int tiles, float *to) {
    _tile_stored(0, to, 64);
    if (tiles > 1) _tile_stored(1, to + 256, 64);
    if (tiles > 2) _tile_stored(2, to + 512, 64);
    if (tiles > 3) _tile_stored(3, to + 768, 64);
}

/// Calls `call(constant, ...)` with the constant that equals `tiles`, which is 1 to 4.
#define BRAID_FOR_TILES(tiles, call, ...)        \
    switch (tiles) {                             \
    case 1: call(1, __VA_ARGS__); break;         \
    case 2: call(2, __VA_ARGS__); break;         \
    case 3: call(3, __VA_ARGS__); break;         \
    default: call(4, __VA_ARGS__); break;        \
    }
