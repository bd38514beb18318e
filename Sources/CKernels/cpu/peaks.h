// The limits of this level: multiply-adds that stay in registers, and reading.
#pragma once

#include "panel.h"

#define BRAID_PEAK_CHAINS (BRAID_TILE_ROWS * BRAID_PANEL)  // as many as a tile of a matrix product has

static int64_t multiply_adds(int64_t turns) {
    f16 a[BRAID_PEAK_CHAINS], x = splat(0.5f), y = splat(0.25f);
    __asm__ volatile("" : : "m"(x), "m"(y) : "memory");
    BRAID_UNROLL for (int i = 0; i < BRAID_PEAK_CHAINS; i++) a[i] = splat((float)i);
    for (int64_t t = 0; t < turns; t++)
        BRAID_UNROLL for (int i = 0; i < BRAID_PEAK_CHAINS; i++) a[i] = fma16(a[i], x, y);
    f16 sum = splat(0);
    BRAID_UNROLL for (int i = 0; i < BRAID_PEAK_CHAINS; i++) sum = sum + a[i];
    __asm__ volatile("" : : "m"(sum));
    return turns * BRAID_PEAK_CHAINS * 32;
}

static void read_bytes(const void *from, int64_t bytes) {
    u16 a = {0}, b = a, c = a, d = a;
    const char *p = from;
    for (int64_t i = 0; i + 256 <= bytes; i += 256) {
        a |= (u16)load16((const float *)(p + i));
        b |= (u16)load16((const float *)(p + i + 64));
        c |= (u16)load16((const float *)(p + i + 128));
        d |= (u16)load16((const float *)(p + i + 192));
    }
    a |= b | c | d;
    __asm__ volatile("" : : "m"(a));
}
