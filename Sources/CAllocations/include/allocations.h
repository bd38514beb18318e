// Counts the calling thread's heap allocations, for tests that promise there are none.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// Allocations of this thread since it began.
uint64_t braid_allocations(void);

/// Whether this build counts at all: not on systems without glibc, not under sanitizers that bring their own allocator.
bool braid_counts_allocations(void);
