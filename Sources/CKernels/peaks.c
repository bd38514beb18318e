// Instructions are measured here: those of tiles, and those that no kernel uses, to know what other software can reach.
#include "include/ckernels.h"

#define BRAID_CHAINS 12

#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/tile_state.h"

__attribute__((target("avx512f,avx512bf16"))) static int64_t bf16_dots(int64_t turns) {
    __m512 a[BRAID_CHAINS];
    __m512bh x = (__m512bh)_mm512_set1_epi16(0x3F80), y = (__m512bh)_mm512_setzero_si512();
    for (int i = 0; i < BRAID_CHAINS; i++) a[i] = _mm512_setzero_ps();
    for (int64_t t = 0; t < turns; t++) {
#pragma clang loop unroll(full)
        for (int i = 0; i < BRAID_CHAINS; i++) {
            a[i] = _mm512_dpbf16_ps(a[i], x, y);
            __asm__ volatile("" : "+v"(a[i]));  // keeps every instruction from being optimized away
        }
    }
    return turns * BRAID_CHAINS * 64;
}

__attribute__((target("avx512f,avx512vnni"))) static int64_t int8_dots(int64_t turns) {
    __m512i a[BRAID_CHAINS], x = _mm512_set1_epi8(1), y = _mm512_set1_epi8(2);
    for (int i = 0; i < BRAID_CHAINS; i++) a[i] = _mm512_setzero_si512();
    for (int64_t t = 0; t < turns; t++) {
#pragma clang loop unroll(full)
        for (int i = 0; i < BRAID_CHAINS; i++) {
            a[i] = _mm512_dpbusd_epi32(a[i], x, y);
            __asm__ volatile("" : "+v"(a[i]));
        }
    }
    return turns * BRAID_CHAINS * 128;
}

/// Multiplies tiles that are loaded from the first-level cache each time: four loads, four products.
__attribute__((target("amx-tile,amx-bf16"))) static int64_t tile_dots(int64_t turns) {
    static const char memory[4][1024] __attribute__((aligned(64)));  // zeros
    begin_tiles();
    for (int64_t t = 0; t < turns; t++) {
        _tile_loadd(4, memory[0], 64);
        _tile_loadd(5, memory[1], 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, memory[2], 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, memory[3], 64);
        _tile_dpbf16ps(2, 5, 7);
        _tile_dpbf16ps(3, 6, 7);
    }
    end_tiles();
    return turns * 4 * 2 * 16 * 16 * 32;
}

int64_t braid_tile_dots(int64_t turns) { return braid_kernels_at(BRAID_AMX) ? tile_dots(turns) : 0; }

int64_t braid_bf16_dots(int64_t turns) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") ? bf16_dots(turns) : 0;
}

int64_t braid_int8_dots(int64_t turns) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni") ? int8_dots(turns) : 0;
}
#else
int64_t braid_tile_dots(int64_t turns) { return 0 * turns; }
int64_t braid_bf16_dots(int64_t turns) { return 0 * turns; }
int64_t braid_int8_dots(int64_t turns) { return 0 * turns; }
#endif
