// Tells the thread sanitizer what Swift's libraries do: they are not compiled with it, so it does not see that a
// contended Mutex orders two threads, nor that a dispatch semaphore or group does, a continuation that was resumed
// before it was awaited, or the reference count of an array's storage. Linked into the tests and the program, these take
// the place of the libraries' functions, and call them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
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

// Swift's libraries release the task when a continuation is resumed, and acquire it where a waiting task goes on, but not
// where the task finds its continuation resumed already, and goes on at once in the same thread. There it is given
// a function of ours, which acquires. A task that waits has been given the compiler's before.

#define ASYNC __attribute__((swiftasynccall))
#define CONTEXT __attribute__((swift_async_context))
// What is not instrumented orders no threads that nothing else orders.
#define UNSEEN __attribute__((disable_sanitizer_instrumentation))

typedef ASYNC void (*resume_function)(CONTEXT void *context);

// The beginning of Swift's ContinuationAsyncContext.
struct continuation {
    void *parent;
    resume_function resume;
};

static _Thread_local resume_function resume;

SWIFT void *swift_task_getCurrent(void);

UNSEEN static ASYNC void acquire_and_resume(CONTEXT void *context) {
    __tsan_acquire(swift_task_getCurrent());
    __attribute__((musttail)) return resume(context);
}

ASYNC void braid_await(struct continuation *continuation) __asm__("swift_continuation_await");
UNSEEN ASYNC void braid_await(struct continuation *continuation) {
    ASYNC void (*await)(struct continuation *) = library("swift_continuation_await");
    resume = continuation->resume;
    continuation->resume = acquire_and_resume;
    __attribute__((musttail)) return await(continuation);
}

// A copy of an array, a dictionary or a string shares its storage. Who finds that all other owners have released it writes
// to it in place, after whatever they have read.

// The address of an object; null where the bits of a bridge object are those of a short or a literal string.
UNSEEN static void *object(uintptr_t bits) { return bits >> 60 ? NULL : (void *)(bits & ~(uintptr_t)7); }

#define RELEASE(name) \
    UNSEEN void name(uintptr_t bits) { \
        static void (*_Atomic known)(uintptr_t); \
        void (*release)(uintptr_t) = atomic_load_explicit(&known, memory_order_relaxed); \
        if (!release) atomic_store_explicit(&known, release = library(#name), memory_order_relaxed); \
        if (object(bits)) __tsan_release(object(bits)); \
        release(bits); \
    }

#define IS_UNIQUE(name) \
    UNSEEN _Bool name(uintptr_t bits) { \
        _Bool isUnique = ((_Bool(*)(uintptr_t))library(#name))(bits); \
        if (isUnique && object(bits)) __tsan_acquire(object(bits)); \
        return isUnique; \
    }

RELEASE(swift_release)
RELEASE(swift_bridgeObjectRelease)
IS_UNIQUE(swift_isUniquelyReferenced_nonNull_native)
IS_UNIQUE(swift_isUniquelyReferenced_nonNull_bridgeObject)
