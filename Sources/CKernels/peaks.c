// Instructions that no kernel uses are measured here, to know what other software can reach with them.
#include "include/peaks.h"

#define BRAID_CHAINS 12

#if defined(__x86_64__)
#include <immintrin.h>

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

int64_t braid_bf16_dots(int64_t turns) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") ? bf16_dots(turns) : 0;
}

int64_t braid_int8_dots(int64_t turns) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni") ? int8_dots(turns) : 0;
}
#else
int64_t braid_bf16_dots(int64_t turns) { return 0 * turns; }
int64_t braid_int8_dots(int64_t turns) { return 0 * turns; }
#endif
