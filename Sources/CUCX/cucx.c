#include "cucx.h"

#if __has_include(<ucp/api/ucp.h>) && !defined(BRAID_WITHOUT_UCX)

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "functions.h"

// The number of the active messages that carry records.
enum { RECORD = 1 };
// The time that operations may still take when the worker is finished.
enum { FINISH_MS = 1000 };

// Held while contexts are made and destroyed, by threads of several sessions: UCX does not say that this may be done at the
// same time.
static pthread_mutex_t contexts = PTHREAD_MUTEX_INITIALIZER;

struct event_node {
    struct event_node *next;
    struct braid_ucx_event event;
};

enum op_kind { OP_SEND, OP_FETCH, OP_CONNECT, OP_CLOSE };

// An operation that UCX has begun. Its bytes live as long.
struct op {
    struct op *next, *previous;
    struct braid_ucx_worker *worker;
    enum op_kind kind;
    uint64_t token;
    void *bytes;
    uint64_t count;
};

struct braid_ucx_record {
    struct braid_ucx_record *next, *previous;
    struct braid_ucx_worker *worker;
    void *description;
    uint64_t count;
};

struct braid_ucx_worker {
    ucp_context_h context;
    ucp_worker_h ucp;
    // NULL until `braid_ucx_connect`.
    ucp_ep_h ep;
    int fd;
    uint8_t pass[BRAID_UCX_PASS];
    // The first thing that failed; UCS_OK if nothing has.
    ucs_status_t status;
    // What the other end has done wrong; NULL if nothing.
    const char *fault;
    bool has_told_end;
    struct op *ops;
    struct braid_ucx_record *announced;
    struct event_node *first, *last;
};

static void *made(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) abort();
    return memory;
}

static struct braid_ucx_event *add_event(struct braid_ucx_worker *worker, enum braid_ucx_kind kind) {
    struct event_node *node = made(sizeof *node);
    node->event.kind = kind;
    if (worker->last) worker->last->next = node;
    else worker->first = node;
    worker->last = node;
    return &node->event;
}

static void fail(struct braid_ucx_worker *worker, ucs_status_t status) {
    if (worker->status == UCS_OK) worker->status = status;
}

// MARK: - Operations

static struct op *begin(struct braid_ucx_worker *worker, enum op_kind kind) {
    struct op *op = made(sizeof *op);
    op->worker = worker;
    op->kind = kind;
    op->next = worker->ops;
    if (op->next) op->next->previous = op;
    worker->ops = op;
    return op;
}

static void forget(struct op *op) {
    if (op->next) op->next->previous = op->previous;
    if (op->previous) op->previous->next = op->next;
    else op->worker->ops = op->next;
    free(op->bytes);
    free(op);
}

static void end(struct op *op, ucs_status_t status) {
    if (status != UCS_OK) {
        fail(op->worker, status);
    } else if (op->kind == OP_CONNECT) {
        add_event(op->worker, BRAID_UCX_CONNECTED);
    } else if (op->kind != OP_CLOSE) {
        bool is_fetched = op->kind == OP_FETCH;
        struct braid_ucx_event *event = add_event(op->worker, is_fetched ? BRAID_UCX_FETCHED : BRAID_UCX_SENT);
        event->token = op->token;
        event->count = op->count;
        if (is_fetched) {
            event->bytes = op->bytes;
            op->bytes = NULL;
        }
    }
    forget(op);
}

static void sent(void *request, ucs_status_t status, void *op) {
    braid_ucx.ucp_request_free(request);
    end(op, status);
}

static void fetched(void *request, ucs_status_t status, size_t count, void *op) {
    (void)count;
    braid_ucx.ucp_request_free(request);
    end(op, status);
}

static ucp_request_param_t parameters(struct op *op) {
    ucp_request_param_t parameters = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS,
        .user_data = op};
    if (op->kind == OP_FETCH) parameters.cb.recv_am = fetched;
    else parameters.cb.send = sent;
    return parameters;
}

// Ends an operation that is done already, or could not begin. Of others, UCX calls back.
static void settle(struct op *op, ucs_status_ptr_t request) {
    if (!UCS_PTR_IS_PTR(request)) end(op, UCS_PTR_RAW_STATUS(request));
}

// MARK: - Connecting

static void failed(void *worker, ucp_ep_h ep, ucs_status_t status) {
    (void)ep;
    fail(worker, status);
}

void braid_ucx_connect(struct braid_ucx_worker *worker, const void *address) {
    ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE
            | UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = address,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = failed, .arg = worker}};
    ucs_status_t status = braid_ucx.ucp_ep_create(worker->ucp, &params, &worker->ep);
    if (status != UCS_OK) {
        worker->ep = NULL;
        return fail(worker, status);
    }
    // A flush ends when the connection is there.
    struct op *op = begin(worker, OP_CONNECT);
    ucp_request_param_t flush = parameters(op);
    settle(op, braid_ucx.ucp_ep_flush_nbx(worker->ep, &flush));
}

// MARK: - The sender

void braid_ucx_send(struct braid_ucx_worker *worker, uint64_t token, void *bytes, uint64_t count) {
    struct op *op = begin(worker, OP_SEND);
    op->token = token;
    op->bytes = bytes;
    op->count = count;
    if (!worker->ep || worker->status != UCS_OK) return end(op, UCS_ERR_NOT_CONNECTED);
    ucp_request_param_t send = parameters(op);
    send.flags = count > BRAID_UCX_MAX_UNANNOUNCED ? UCP_AM_SEND_FLAG_RNDV : UCP_AM_SEND_FLAG_EAGER;
    settle(op, braid_ucx.ucp_am_send_nbx(worker->ep, RECORD, worker->pass, sizeof worker->pass, bytes, count, &send));
}

// MARK: - The receiver

// Compares in a time that does not depend on what differs.
static bool shows_pass(const struct braid_ucx_worker *worker, const uint8_t *header, size_t length) {
    if (length != BRAID_UCX_PASS) return false;
    uint8_t difference = 0;
    for (int i = 0; i < BRAID_UCX_PASS; i++) difference |= header[i] ^ worker->pass[i];
    return !difference;
}

static ucs_status_t came(
    void *argument, const void *header, size_t header_length, void *data, size_t length,
    const ucp_am_recv_param_t *param) {
    struct braid_ucx_worker *worker = argument;
    if (!shows_pass(worker, header, header_length) || worker->status != UCS_OK) return UCS_OK;
    if (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) {
        struct braid_ucx_record *record = made(sizeof *record);
        *record = (struct braid_ucx_record){worker->announced, NULL, worker, data, length};
        if (record->next) record->next->previous = record;
        worker->announced = record;
        struct braid_ucx_event *event = add_event(worker, BRAID_UCX_ANNOUNCED);
        event->record = record;
        event->count = length;
        return UCS_INPROGRESS;
    }
    if (length > BRAID_UCX_MAX_UNANNOUNCED) {
        worker->fault = "it sends a long record that it has not announced";
        fail(worker, UCS_ERR_REJECTED);
        return UCS_OK;
    }
    struct braid_ucx_event *event = add_event(worker, BRAID_UCX_CAME);
    event->bytes = made(length + 1);
    event->count = length;
    memcpy(event->bytes, data, length);
    return UCS_OK;
}

static void remove_record(struct braid_ucx_record *record) {
    if (record->next) record->next->previous = record->previous;
    if (record->previous) record->previous->next = record->next;
    else record->worker->announced = record->next;
    free(record);
}

void braid_ucx_fetch(struct braid_ucx_record *record, uint64_t token) {
    struct braid_ucx_worker *worker = record->worker;
    struct op *op = begin(worker, OP_FETCH);
    op->token = token;
    op->count = record->count;
    op->bytes = malloc(op->count + 1);
    if (!op->bytes) abort();
    void *description = record->description;
    remove_record(record);
    ucp_request_param_t fetch = parameters(op);
    settle(op, braid_ucx.ucp_am_recv_data_nbx(worker->ucp, description, op->bytes, op->count, &fetch));
}

// MARK: - Progress

bool braid_ucx_next(struct braid_ucx_worker *worker, struct braid_ucx_event *event) {
    while (!worker->first && braid_ucx.ucp_worker_progress(worker->ucp)) {}
    if (!worker->first && worker->status != UCS_OK && !worker->has_told_end) {
        worker->has_told_end = true;
        const char *text = worker->fault ? worker->fault : braid_ucx.ucs_status_string(worker->status);
        snprintf(add_event(worker, BRAID_UCX_ENDED)->text, BRAID_UCX_TEXT, "%s", text);
    }
    struct event_node *node = worker->first;
    if (!node) return false;
    worker->first = node->next;
    if (!worker->first) worker->last = NULL;
    *event = node->event;
    free(node);
    return true;
}

void braid_ucx_wait(struct braid_ucx_worker *worker, int32_t milliseconds) {
    if (braid_ucx.ucp_worker_arm(worker->ucp) != UCS_OK) return;
    poll(&(struct pollfd){.fd = worker->fd, .events = POLLIN}, 1, milliseconds);
}

void braid_ucx_wake(struct braid_ucx_worker *worker) { braid_ucx.ucp_worker_signal(worker->ucp); }

// MARK: - Workers

static ucs_status_t create_context(const char *devices, const char *transports, ucp_context_h *context) {
    ucp_config_t *config;
    ucs_status_t status = braid_ucx.ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK) return status;
    if (!getenv("UCX_KEEPALIVE_INTERVAL")) braid_ucx.ucp_config_modify(config, "KEEPALIVE_INTERVAL", "2s");
    if (devices) status = braid_ucx.ucp_config_modify(config, "NET_DEVICES", devices);
    if (transports && status == UCS_OK) status = braid_ucx.ucp_config_modify(config, "TLS", transports);
    ucp_params_t params = {
        .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP};
    if (status == UCS_OK) {
        status = braid_ucx.ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, context);
    }
    braid_ucx.ucp_config_release(config);
    return status;
}

static ucs_status_t create_worker(struct braid_ucx_worker *worker) {
    ucp_worker_params_t params = {
        .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE, .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucs_status_t status = braid_ucx.ucp_worker_create(worker->context, &params, &worker->ucp);
    if (status != UCS_OK) return status;
    ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS
            | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = RECORD,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = came,
        .arg = worker};
    status = braid_ucx.ucp_worker_set_am_recv_handler(worker->ucp, &handler);
    if (status == UCS_OK) status = braid_ucx.ucp_worker_get_efd(worker->ucp, &worker->fd);
    if (status != UCS_OK) braid_ucx.ucp_worker_destroy(worker->ucp);
    return status;
}

static ucs_status_t create(struct braid_ucx_worker *worker, const char *devices, const char *transports) {
    ucs_status_t status = create_context(devices, transports, &worker->context);
    if (status != UCS_OK) return status;
    status = create_worker(worker);
    if (status != UCS_OK) braid_ucx.ucp_cleanup(worker->context);
    return status;
}

struct braid_ucx_worker *braid_ucx_start(
    const char *devices, const char *transports, const uint8_t pass[BRAID_UCX_PASS], char problem[BRAID_UCX_TEXT]) {
    struct braid_ucx_worker *worker = made(sizeof *worker);
    memcpy(worker->pass, pass, sizeof worker->pass);
    pthread_mutex_lock(&contexts);
    ucs_status_t status = create(worker, devices, transports);
    pthread_mutex_unlock(&contexts);
    if (status == UCS_OK) return worker;
    snprintf(problem, BRAID_UCX_TEXT, "%s", braid_ucx.ucs_status_string(status));
    free(worker);
    return NULL;
}

void *braid_ucx_address(struct braid_ucx_worker *worker, uint64_t *count) {
    ucp_address_t *address;
    size_t length;
    if (braid_ucx.ucp_worker_get_address(worker->ucp, &address, &length) != UCS_OK) return NULL;
    void *bytes = made(length);
    memcpy(bytes, address, length);
    *count = length;
    braid_ucx.ucp_worker_release_address(worker->ucp, address);
    return bytes;
}

static uint64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static void remove_events(struct braid_ucx_worker *worker) {
    while (worker->first) {
        struct event_node *node = worker->first;
        worker->first = node->next;
        free(node->event.bytes);
        free(node);
    }
    worker->last = NULL;
}

void braid_ucx_finish(struct braid_ucx_worker *worker) {
    fail(worker, UCS_ERR_CANCELED);
    while (worker->announced) {
        braid_ucx.ucp_am_data_release(worker->ucp, worker->announced->description);
        remove_record(worker->announced);
    }
    if (worker->ep) {
        struct op *op = begin(worker, OP_CLOSE);
        ucp_request_param_t close = parameters(op);
        close.flags = UCP_EP_CLOSE_FLAG_FORCE;
        settle(op, braid_ucx.ucp_ep_close_nbx(worker->ep, &close));
    }
    for (uint64_t last = now_ms() + FINISH_MS; worker->ops && now_ms() < last; remove_events(worker)) {
        if (!braid_ucx.ucp_worker_progress(worker->ucp)) poll(NULL, 0, 1);
    }
    // UCX ends the process if a worker is destroyed that has operations in progress. They may also still use their bytes, so
    // it is better to lose all of this memory.
    if (worker->ops) return;
    pthread_mutex_lock(&contexts);
    braid_ucx.ucp_worker_destroy(worker->ucp);
    braid_ucx.ucp_cleanup(worker->context);
    pthread_mutex_unlock(&contexts);
    free(worker);
}

#endif
