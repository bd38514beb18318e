// All kernels for processors with AVX-512, and those for AMX.
#if defined(__x86_64__)
#include <immintrin.h>  // before the attribute: its functions carry their own

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"), min_vector_width(512))), apply_to = function)
#define BRAID_TABLE braid_avx512
#define BRAID_TABLE_NAME "AVX-512"
#define BRAID_REGISTERS 32  // the number of sixteen-lane values that the register file holds
#define BRAID_COMPRESS      // packs selected lanes with one instruction
#define BRAID_WORD_TABLES 1  // looks up sixteen-bit words in a table in registers
#include "table.h"
#pragma clang attribute pop

// Processors of this level may have VNNI, for INT8.
#pragma clang attribute push(__attribute__((target("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"), min_vector_width(512))), apply_to = function)
#include "vnni.h"
#pragma clang attribute pop

// And BF16, for products of many rows.
#pragma clang attribute push(__attribute__((target("avx512bf16,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"), min_vector_width(512))), apply_to = function)
#include "dots.h"
#pragma clang attribute pop

// The level above has the same kernels, but for those that multiply in the BF16 profile or bytes.
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,amx-int8,avx512bf16,avx512vbmi,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"), min_vector_width(512))), apply_to = function)
#include "amx.h"
#pragma clang attribute pop
#endif
