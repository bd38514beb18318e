// All kernels for processors with AVX2, FMA and F16C.
#if defined(__x86_64__)
#include <immintrin.h>  // before the attribute: its functions carry their own

#pragma clang diagnostic ignored "-Wpsabi"  // sixteen lanes are two registers here; nothing with them leaves this file
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))), apply_to = function)
#define BRAID_TABLE braid_avx2
#define BRAID_TABLE_NAME "AVX2"
#define BRAID_REGISTERS 8
#include "table.h"
#pragma clang attribute pop
#endif
