#include "cucx.h"

#include <stdio.h>

#if __has_include(<ucp/api/ucp.h>) && !defined(BRAID_WITHOUT_UCX)

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "functions.h"

struct braid_ucx_functions braid_ucx;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char failure[BRAID_UCX_TEXT];

// Opens one library. The number is that of its interface, which the headers describe.
static void *opened(const char *name) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) snprintf(failure, sizeof failure, "%s", dlerror());
    return library;
}

static void *function(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found && !failure[0]) snprintf(failure, sizeof failure, "the installed UCX has no function %s", name);
    return found;
}

static void find_functions(void) {
    void *ucs = opened("libucs.so.0"), *ucp = ucs ? opened("libucp.so.0") : NULL;
    if (!ucp) return;
#define FIND(name) *(void **)&braid_ucx.name = function(ucp, #name);
    BRAID_UCX_FUNCTIONS(FIND)
#undef FIND
    *(void **)&braid_ucx.ucs_status_string = function(ucs, "ucs_status_string");
    // UCX writes what it finds wrong to the standard output. Errors come to the caller as events, so only what was asked
    // for is written.
    ucs_status_t (*set)(const char *, const char *);
    *(void **)&set = function(ucs, "ucs_global_opts_set_value");
    if (set && !getenv("UCX_LOG_LEVEL")) set("LOG_LEVEL", "fatal");
}

// The libraries install handlers of signals when they are opened. These print a stack and end the process, while the
// program has handlers of its own.
static void load(void) {
    // Transports over shared memory notice that the other process has ended only if they are told to, which is possible in
    // no other way.
    setenv("UCX_POSIX_ERROR_HANDLING", "y", 0);
    setenv("UCX_SYSV_ERROR_HANDLING", "y", 0);
    setenv("UCX_CMA_ERROR_HANDLING", "y", 0);
    static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    enum { COUNT = sizeof signals / sizeof *signals };
    struct sigaction before[COUNT];
    for (int i = 0; i < COUNT; i++) sigaction(signals[i], NULL, &before[i]);
    find_functions();
    for (int i = 0; i < COUNT; i++) sigaction(signals[i], &before[i], NULL);
}

bool braid_ucx_load(char problem[BRAID_UCX_TEXT]) {
    pthread_once(&once, load);
    memcpy(problem, failure, sizeof failure);
    return !failure[0];
}

#else

#include <stdlib.h>

bool braid_ucx_load(char problem[BRAID_UCX_TEXT]) {
    snprintf(problem, BRAID_UCX_TEXT, "this program was built without UCX's headers");
    return false;
}
struct braid_ucx_worker *braid_ucx_start(
    const char *devices, const char *transports, const uint8_t pass[BRAID_UCX_PASS], char problem[BRAID_UCX_TEXT]) {
    (void)devices, (void)transports, (void)pass, (void)problem;
    abort();
}
void braid_ucx_finish(struct braid_ucx_worker *worker) {
    (void)worker;
    abort();
}
void *braid_ucx_address(struct braid_ucx_worker *worker, uint64_t *count) {
    (void)worker, (void)count;
    abort();
}
void braid_ucx_connect(struct braid_ucx_worker *worker, const void *address) {
    (void)worker, (void)address;
    abort();
}
void braid_ucx_send(struct braid_ucx_worker *worker, uint64_t token, void *bytes, uint64_t count) {
    (void)worker, (void)token, (void)bytes, (void)count;
    abort();
}
void braid_ucx_fetch(struct braid_ucx_record *record, uint64_t token) {
    (void)record, (void)token;
    abort();
}
bool braid_ucx_next(struct braid_ucx_worker *worker, struct braid_ucx_event *event) {
    (void)worker, (void)event;
    abort();
}
void braid_ucx_wait(struct braid_ucx_worker *worker, int32_t milliseconds) {
    (void)worker, (void)milliseconds;
    abort();
}
void braid_ucx_wake(struct braid_ucx_worker *worker) {
    (void)worker;
    abort();
}

#endif
