// On which logical processors a thread runs, and on which memory nodes its new pages are. Only Linux has these calls;
// elsewhere they fail.
#pragma once
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

// Writes the numbers of the logical processors that the process may use, `capacity` at most, in ascending order, and
// returns their count, or 0 if the system does not say.
int braid_allowed_processors(int *processors, int capacity);

// Limits the calling thread to these logical processors. Returns false if the system refuses.
bool braid_bind_thread(const int *processors, int count);

// Returns true if the calling thread has a memory policy other than the default, as a process started by numactl has.
bool braid_has_memory_policy(void);

// Takes the calling thread's new pages, those of files that it reads first as well, from these memory nodes in turn;
// without nodes, from the node of the processor it runs on. Returns false if the system refuses.
bool braid_take_memory_from(const int *nodes, int count);

#ifdef __cplusplus
}
#endif
