// Tells the thread sanitizer what Swift's libraries do: they are not compiled with it, so it sees neither that a
// contended Mutex orders two threads, nor that a dispatch semaphore or group does. Linked into the tests, these take
// the place of the libraries' functions, and call them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

// _MutexHandle._lockSlow(_:) and ._unlockSlow(); the fast paths are inlined, and so the sanitizer sees them.
#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

static void *library(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);
    if (!function) abort();
    return function;
}

SWIFT void braid_lock(uint32_t thread, SELF void *mutex) __asm__(LOCK);
SWIFT void braid_lock(uint32_t thread, SELF void *mutex) {
    ((SWIFT void (*)(uint32_t, SELF void *))library(LOCK))(thread, mutex);
    __tsan_acquire(mutex);
}

SWIFT void braid_unlock(SELF void *mutex) __asm__(UNLOCK);
SWIFT void braid_unlock(SELF void *mutex) {
    __tsan_release(mutex);
    ((SWIFT void (*)(SELF void *))library(UNLOCK))(mutex);
}

intptr_t dispatch_semaphore_signal(void *semaphore) {
    __tsan_release(semaphore);
    return ((intptr_t(*)(void *))library("dispatch_semaphore_signal"))(semaphore);
}

intptr_t dispatch_semaphore_wait(void *semaphore, uint64_t until) {
    intptr_t timedOut = ((intptr_t(*)(void *, uint64_t))library("dispatch_semaphore_wait"))(semaphore, until);
    if (!timedOut) __tsan_acquire(semaphore);
    return timedOut;
}

void dispatch_group_leave(void *group) {
    __tsan_release(group);
    ((void (*)(void *))library("dispatch_group_leave"))(group);
}

intptr_t dispatch_group_wait(void *group, uint64_t until) {
    intptr_t timedOut = ((intptr_t(*)(void *, uint64_t))library("dispatch_group_wait"))(group, until);
    if (!timedOut) __tsan_acquire(group);
    return timedOut;
}
