// Reports traps of threads to the rest of the process, instead of ending the process at once. Threads opt in one by
// one, or all together.
//
// On a failed precondition, an index out of bounds or a wild pointer, the processor stops the thread with a signal, and
// by default the process dies at once, with all its clients' connections. Memory may be damaged, and the trapped thread
// may hold locks, so nothing can be repaired. What can be done is to report the trap on a pipe, keep the thread where
// it is, and give the rest of the process a few seconds to answer clients that wait.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Is the exit status of a process that ended because of a trap.
enum { BRAID_TRAP_STATUS = 70 };
// The process ends this many seconds after a trap, in any case.
enum { BRAID_TRAP_GRACE_SECONDS = 4 };

// A report of one trap, as the pipe carries it.
struct braid_trap {
    uint64_t token;  // the token that `braid_traps_enter` received
    // The address whose access failed; 0 if the signal has none, or was sent by a process.
    uint64_t address;
    int32_t signal;
    int32_t unused;
};

// Installs the handlers, once. The signals of threads that did not enter keep their previous effect.
// Returns the end of the pipe from which `struct braid_trap`s can be read, or -1 with errno.
int braid_traps_install(void);

// From now on, traps of the calling thread are reported with this token, which is not 0.
void braid_traps_enter(uint64_t token);
void braid_traps_leave(void);

// From now on, traps of all other threads are reported with this token. Those threads have no separate stack for the
// handler: if one exhausts its stack, the process still ends at once.
void braid_traps_enter_others(uint64_t token);

// After a trap's grace period the process runs its own executable again with these arguments, as execv does, instead of
// ending. The arguments must stay valid. NULL restores the default: the process ends.
void braid_traps_restart_with(char *const *arguments);

// Does at once what happens at the end of the grace period: ends the process or runs it again. It takes no locks, so it
// is safe in a signal handler.
_Noreturn void braid_traps_end(void);

#ifdef __cplusplus
}
#endif
