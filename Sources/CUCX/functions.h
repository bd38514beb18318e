// The functions of UCX that are used, and where they are once the libraries are open.
#pragma once
#include <ucp/api/ucp.h>

#define BRAID_UCX_FUNCTIONS(each)        \
    each(ucp_am_data_release)            \
    each(ucp_am_recv_data_nbx)           \
    each(ucp_am_send_nbx)                \
    each(ucp_cleanup)                    \
    each(ucp_config_modify)              \
    each(ucp_config_read)                \
    each(ucp_config_release)             \
    each(ucp_ep_close_nbx)               \
    each(ucp_ep_create)                  \
    each(ucp_ep_flush_nbx)               \
    each(ucp_init_version)               \
    each(ucp_request_free)               \
    each(ucp_worker_arm)                 \
    each(ucp_worker_create)              \
    each(ucp_worker_destroy)             \
    each(ucp_worker_get_address)         \
    each(ucp_worker_get_efd)             \
    each(ucp_worker_progress)            \
    each(ucp_worker_release_address)     \
    each(ucp_worker_set_am_recv_handler) \
    each(ucp_worker_signal)

struct braid_ucx_functions {
#define MEMBER(name) __typeof__(&name) name;
    BRAID_UCX_FUNCTIONS(MEMBER)
#undef MEMBER
    const char *(*ucs_status_string)(ucs_status_t);
};

// All are null until `braid_ucx_load` has returned true.
extern struct braid_ucx_functions braid_ucx;
