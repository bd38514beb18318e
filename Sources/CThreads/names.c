#include "include/names.h"

#if defined(__linux__)
#include <string.h>
#include <sys/prctl.h>
#else
#include <pthread.h>
#endif

void braid_set_thread_name(const char *name) {
#if defined(__linux__)
    prctl(PR_SET_NAME, name, 0, 0, 0);
#else
    pthread_setname_np(name);
#endif
}

void braid_get_thread_name(char *name, size_t bytes) {
#if defined(__linux__)
    char own[16] = {0};
    prctl(PR_GET_NAME, own, 0, 0, 0);
    strncpy(name, own, bytes - 1);
    name[bytes - 1] = 0;
#else
    if (pthread_getname_np(pthread_self(), name, bytes) != 0) name[0] = 0;
#endif
}
