// The limits of a processor, which kernels are measured against.
#pragma once

#include <stdint.h>

/// Runs `turns` rounds of an instruction that adds 32 products of BF16 elements, or 64 products of bytes, in enough
/// chains to hide its latency. Returns the floating-point or integer operations done (a multiplication and an addition
/// are two), or 0 where the processor lacks the instruction. Products of many rows in the profile BF16 use the first one on
/// AMD's processors; Intel's add BF16 pairs at half the rate of F32 multiply-adds. Products of the profiles INT8 use the
/// second one.
int64_t braid_bf16_dots(int64_t turns);
int64_t braid_int8_dots(int64_t turns);

/// Runs `turns` rounds of four products of BF16 tiles with four tile loads, which is what products of the BF16 profile
/// are made of at the level BRAID_AMX. Returns the floating-point operations done, or 0 where that level is missing.
int64_t braid_tile_dots(int64_t turns);
