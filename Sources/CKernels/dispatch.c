// Chooses the table of kernels for the processor.
#include "include/ckernels.h"

extern const braid_kernels braid_reference;
#if defined(__x86_64__)
extern const braid_kernels braid_avx2;
extern const braid_kernels braid_avx512;
#elif defined(__aarch64__)
extern const braid_kernels braid_neon;
#endif

#if defined(__x86_64__)
// Checks everything that the target attribute of level_avx2.c lets the compiler use.
static bool has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")
        && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt")
        && __builtin_cpu_supports("lzcnt");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512cd");
}
#endif

const braid_kernels *braid_kernels_at(braid_level level) {
    switch (level) {
    case BRAID_REFERENCE: return &braid_reference;
#if defined(__x86_64__)
    case BRAID_AVX2: return has_avx2() ? &braid_avx2 : 0;
    case BRAID_AVX512: return has_avx512() ? &braid_avx512 : 0;
#elif defined(__aarch64__)
    case BRAID_NEON: return &braid_neon;  // part of the architecture
#endif
    default: return 0;
    }
}

braid_level braid_best_level(void) {
    braid_level level = BRAID_AVX512;
    while (!braid_kernels_at(level)) level = (braid_level)(level - 1);
    return level;
}
