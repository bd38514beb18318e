// The limits of a processor, which kernels are measured against. No model computes with them.
#pragma once

#include <stdint.h>

/// Runs `turns` rounds of an instruction that adds 32 products of BF16 elements, or 64 products of bytes, in enough
/// chains to hide its latency. Returns the floating-point or integer operations done (a multiplication and an addition
/// are two), or 0 where the processor lacks the instruction. No kernel uses either: sums of BF16 pairs round otherwise
/// than F32 chains, and activations are not bytes. The results say what a library that does use them could reach.
int64_t braid_bf16_dots(int64_t turns);
int64_t braid_int8_dots(int64_t turns);
