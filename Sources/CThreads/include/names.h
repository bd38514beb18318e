// The name of a thread in debuggers and `top -H`; at most 15 bytes.
#pragma once
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Names the calling thread.
void braid_set_thread_name(const char *name);
// Copies the calling thread's name, terminated by a zero, into `name`, which has room for `bytes` bytes.
void braid_get_thread_name(char *name, size_t bytes);

#ifdef __cplusplus
}
#endif
