// Counts the calling thread's heap allocations, for tests that assert that there are none, and the bytes that the process has
// allocated, for tests that assert that they do not grow.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// Returns the number of allocations of the calling thread since it began.
uint64_t braid_allocations(void);

/// Returns true if this build counts allocations: it does not without glibc, or under sanitizers with their own
/// allocator.
bool braid_counts_allocations(void);

/// Returns the number of bytes that the process has allocated and not freed, as glibc counts them.
uint64_t braid_allocated_bytes(void);
