#include "include/allocations.h"

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define BRAID_SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(BRAID_SANITIZED)
#include <malloc.h>

// Definitions in the program take precedence over the C library's, for every library it loads.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static __thread uint64_t allocations;

void *malloc(size_t bytes) {
    allocations++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
    allocations++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes) {
    allocations++;
    return __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    allocations++;
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
    allocations++;
    *out = __libc_memalign(alignment, bytes);
    return *out == NULL ? 12 : 0;
}

uint64_t braid_allocations(void) { return allocations; }
bool braid_counts_allocations(void) { return true; }

uint64_t braid_allocated_bytes(void) {
    const struct mallinfo2 all = mallinfo2();
    return all.uordblks + all.hblkhd;
}
#else
uint64_t braid_allocations(void) { return 0; }
bool braid_counts_allocations(void) { return false; }
uint64_t braid_allocated_bytes(void) { return 0; }
#endif
