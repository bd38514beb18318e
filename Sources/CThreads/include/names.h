// What debuggers and `top -H` call a thread: 15 bytes at most.
#pragma once
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Names the calling thread.
void braid_set_thread_name(const char *name);
// The calling thread's name, with a zero behind it.
void braid_get_thread_name(char *name, size_t bytes);

#ifdef __cplusplus
}
#endif
