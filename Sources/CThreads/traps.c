#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "include/traps.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <mach-o/dyld.h>
#endif

// These are the signals of Swift's traps, wild pointers, divisions by zero and the C library's abort().
static const int signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
enum { COUNT = sizeof signals / sizeof *signals, STACK = 64 << 10 };

static struct sigaction previous[COUNT];
static int reading = -1, writing = -1;
static char *const *restart_arguments;
static char executable[4096];

static _Thread_local uint64_t own_token;
// The token for threads that did not enter. While it is 0, their traps end the process as usual.
static _Atomic uint64_t others_token;
// A thread may trap because its stack is exhausted, so the handler runs on a separate stack.
static _Thread_local void *own_stack;

// Restores the previous handler, for the trap of a thread that did not enter.
static void give_back(int number, const siginfo_t *info) {
    for (int i = 0; i < COUNT; i++) {
        if (signals[i] == number) sigaction(number, &previous[i], NULL);
    }
    // A fault happens again when the handler returns. A signal sent by a process, or a breakpoint, does not.
    if (info->si_code <= 0 || number == SIGTRAP) raise(number);
}

// Everything below is safe in a signal handler: system calls and memory that is already allocated.
static void handle(int number, siginfo_t *info, void *context) {
    (void)context;
    uint64_t token = own_token ? own_token : atomic_load(&others_token);
    if (token == 0) {
        give_back(number, info);
        return;
    }
    struct braid_trap trap = {.token = token, .signal = number};
    if ((number == SIGBUS || number == SIGSEGV) && info->si_code > 0) {
        memcpy(&trap.address, &info->si_addr, sizeof info->si_addr);
    }
    while (write(writing, &trap, sizeof trap) < 0 && errno == EINTR) {
    }
    // The thread never continues: it may hold locks, and its state is unknown. It only makes sure that the process ends
    // even if those locks block every other thread; that needs no other thread.
    struct timespec rest = {.tv_sec = BRAID_TRAP_GRACE_SECONDS};
    while (nanosleep(&rest, &rest) < 0 && errno == EINTR) {
    }
    braid_traps_end();
}

int braid_traps_install(void) {
    if (reading >= 0) return reading;
    int ends[2];
    if (pipe(ends) < 0) return -1;
    for (int i = 0; i < 2; i++) fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    reading = ends[0];
    writing = ends[1];
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    // The handler does not return, so no other handler may interrupt it.
    sigfillset(&action.sa_mask);
    for (int i = 0; i < COUNT; i++) {
        if (sigaction(signals[i], &action, &previous[i]) < 0) return -1;
    }
    return reading;
}

void braid_traps_enter(uint64_t token) {
    own_stack = malloc(STACK);
    if (own_stack) {
        stack_t stack = {.ss_sp = own_stack, .ss_size = STACK};
        sigaltstack(&stack, NULL);
    }
    own_token = token;
}

void braid_traps_leave(void) {
    own_token = 0;
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    free(own_stack);
    own_stack = NULL;
}

void braid_traps_enter_others(uint64_t token) { atomic_store(&others_token, token); }

void braid_traps_restart_with(char *const *arguments) {
#if defined(__APPLE__)
    uint32_t size = sizeof executable;
    if (_NSGetExecutablePath(executable, &size) != 0) return;
#else
    // The link leads to the running file, even if another file now has its name.
    memcpy(executable, "/proc/self/exe", sizeof "/proc/self/exe");
#endif
    restart_arguments = arguments;
}

// Closes all files on exec. Sockets, above all the listening one, must not stay open in the new process.
static void close_on_exec(void) {
#if defined(SYS_close_range)
    if (syscall(SYS_close_range, 3U, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */) == 0) return;
#endif
    for (int file = 3; file < 1 << 16; file++) {
        int flags = fcntl(file, F_GETFD);
        if (flags >= 0) fcntl(file, F_SETFD, flags | FD_CLOEXEC);
    }
}

_Noreturn void braid_traps_end(void) {
    if (restart_arguments) {
        close_on_exec();
        // Blocked and ignored signals are inherited by the new program.
        signal(SIGTERM, SIG_DFL);
        signal(SIGINT, SIG_DFL);
        sigset_t none;
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        execv(executable, restart_arguments);
    }
    _exit(BRAID_TRAP_STATUS);
}
