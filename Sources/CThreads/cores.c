#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "include/cores.h"

#if defined(__linux__)
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 1 << 16 };  // logical processors, and memory nodes

int braid_allowed_processors(int *processors, int capacity) {
    cpu_set_t *set = CPU_ALLOC(MOST);
    const size_t bytes = CPU_ALLOC_SIZE(MOST);
    int count = 0;
    if (!set) return 0;
    if (sched_getaffinity(0, bytes, set) == 0)
        for (int i = 0; i < MOST && count < capacity; i++)
            if (CPU_ISSET_S((size_t)i, bytes, set)) processors[count++] = i;
    CPU_FREE(set);
    return count;
}

bool braid_bind_thread(const int *processors, int count) {
    cpu_set_t *set = CPU_ALLOC(MOST);
    const size_t bytes = CPU_ALLOC_SIZE(MOST);
    if (!set) return false;
    CPU_ZERO_S(bytes, set);
    for (int i = 0; i < count; i++)
        if (processors[i] >= 0 && processors[i] < MOST) CPU_SET_S((size_t)processors[i], bytes, set);
    const bool is_bound = sched_setaffinity(0, bytes, set) == 0;
    CPU_FREE(set);
    return is_bound;
}

bool braid_has_memory_policy(void) {
    int mode = 0;
    return syscall(SYS_get_mempolicy, &mode, (void *)0, 0ul, (void *)0, 0ul) == 0 && mode != 0;
}

bool braid_take_memory_from(const int *nodes, int count) {
    enum { LOCAL = 0, INTERLEAVED = 3, BITS = 8 * sizeof(unsigned long), NODES = 1024 };  // MPOL_DEFAULT, MPOL_INTERLEAVE
    unsigned long mask[NODES / BITS];
    memset(mask, 0, sizeof mask);
    for (int i = 0; i < count; i++) {
        if (nodes[i] < 0 || nodes[i] >= NODES) return false;
        mask[nodes[i] / BITS] |= 1ul << nodes[i] % BITS;
    }
    if (count == 0) return syscall(SYS_set_mempolicy, LOCAL, (unsigned long *)0, 0ul) == 0;
    return syscall(SYS_set_mempolicy, INTERLEAVED, mask, NODES + 1ul) == 0;
}
#else
int braid_allowed_processors(int *processors, int capacity) {
    (void)processors, (void)capacity;
    return 0;
}

bool braid_bind_thread(const int *processors, int count) {
    (void)processors, (void)count;
    return false;
}

bool braid_has_memory_policy(void) { return false; }

bool braid_take_memory_from(const int *nodes, int count) {
    (void)nodes, (void)count;
    return false;
}
#endif
