// Traps of threads that asked for it, or of all: told to the process before it ends, instead of ending it at once.
//
// A failed precondition, an index out of bounds, a wild pointer: the processor stops the thread with a signal, and by
// default the process dies on the spot, clients and all. Memory may be damaged and locks held by the thread that
// trapped, so nothing can be mended in place. What can be done is to say so on a pipe, leave the thread where it is,
// and give the rest of the process a few seconds to answer those who wait.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Exit status of a process that ended because of a trap.
enum { BRAID_TRAP_STATUS = 70 };
// From a trap to the end of the process, in any case.
enum { BRAID_TRAP_GRACE_SECONDS = 4 };

// What the pipe carries.
struct braid_trap {
    uint64_t token;  // what `braid_traps_enter` was given
    int32_t signal;
    int32_t unused;
};

// Installs the handlers, once. Threads that did not enter keep whatever their signals did before.
// Returns the end of the pipe to read `struct braid_trap`s from, or -1 with errno.
int braid_traps_install(void);

// From now on, traps of the calling thread are told with this token, which is not 0.
void braid_traps_enter(uint64_t token);
void braid_traps_leave(void);

// From now on, traps of all other threads are told with this token. Those have no stack of their own for the handler:
// one whose stack is used up still ends the process at once.
void braid_traps_enter_others(uint64_t token);

// When the time after a trap is over, the process shall run its own executable anew with these arguments, as with
// execv, instead of ending. They must stay valid. NULL: it shall end after all.
void braid_traps_restart_with(char *const *arguments);

// What happens when that time is over, now. Locks are not asked for: safe wherever a signal handler is.
_Noreturn void braid_traps_end(void);

#ifdef __cplusplus
}
#endif
