// What a processor can do at most: what kernels are measured against, and nothing a model computes with.
#pragma once

#include <stdint.h>

/// Multiplies and adds sixteen BF16 pairs, or 64 bytes, in one instruction, as many chains of it as hide its latency.
/// Returns the floating-point or integer operations done (a multiplication and an addition are two), or 0 where the
/// processor lacks the instruction. No kernel uses either: sums of BF16 pairs round otherwise than F32 chains, and
/// activations are not bytes. They say what a library that does use them could reach.
int64_t braid_bf16_dots(int64_t turns);
int64_t braid_int8_dots(int64_t turns);
