// Chooses the table of kernels for the processor.
#include "include/ckernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const braid_kernels braid_reference;
#if defined(__x86_64__)
extern const braid_kernels braid_avx2;
extern const braid_kernels braid_avx512;
extern const braid_kernels braid_avx512_vnni;
extern const braid_kernels braid_avx512_dots;
extern const braid_kernels braid_amx;
bool braid_amx_is_exact(void);   // see cpu/amx.h
bool braid_dots_are_exact(void);  // see cpu/dots.h
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

static bool has_vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

// Returns whether this processor has VDPBF16PS, and its sums are those of the BF16 profile.
static bool has_dots(void) {
    static _Atomic(int) known;  // as in has_amx
    if (known == 0) known = has_vnni() && __builtin_cpu_supports("avx512bf16") && braid_dots_are_exact() ? 1 : -1;
    return known > 0;
}

// Intel's processors add BF16 pairs at half the rate of F32 multiply-adds, AMD's at nearly twice that rate.
static const braid_kernels *avx512(void) {
    if (has_dots() && __builtin_cpu_is("amd")) return &braid_avx512_dots;
    return has_vnni() ? &braid_avx512_vnni : braid_avx512_without_vnni();
}

// Returns whether this processor has AMX, the operating system lets this process use it, and its sums are those of the
// BF16 profile. The permission holds for all threads.
static bool has_amx(void) {
    static _Atomic(int) known;  // 0 until it is known, then 1 or -1; threads that find out together find the same
    if (known == 0) known = braid_tiles() == BRAID_TILES_USABLE && braid_amx_is_exact() ? 1 : -1;
    return known > 0;
}
#endif

braid_tiles_state braid_tiles(void) {
#if defined(__x86_64__) && defined(__linux__)
    if (!has_vnni() || !__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512bf16")
        || !__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16")
        || !__builtin_cpu_supports("amx-int8"))
        return BRAID_TILES_MISSING;
    const long refusal = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* the state of tiles */);
    return refusal == 0 ? BRAID_TILES_USABLE : BRAID_TILES_REFUSED;
#else
    return BRAID_TILES_MISSING;
#endif
}

const braid_kernels *braid_avx512_without_vnni(void) {
#if defined(__x86_64__)
    return has_avx512() ? &braid_avx512 : 0;
#else
    return 0;
#endif
}

const braid_kernels *braid_avx512_with_dots(void) {
#if defined(__x86_64__)
    return has_dots() ? &braid_avx512_dots : 0;
#else
    return 0;
#endif
}

const braid_kernels *braid_kernels_at(braid_level level) {
    switch (level) {
    case BRAID_REFERENCE: return &braid_reference;
#if defined(__x86_64__)
    case BRAID_AVX2: return has_avx2() ? &braid_avx2 : 0;
    case BRAID_AVX512: return avx512();
    case BRAID_AMX: return has_amx() ? &braid_amx : 0;
#elif defined(__aarch64__)
    case BRAID_NEON: return &braid_neon;  // part of the architecture
#endif
    default: return 0;
    }
}

braid_level braid_best_level(void) {
    braid_level level = BRAID_AMX;
    while (!braid_kernels_at(level)) level = (braid_level)(level - 1);
    return level;
}
