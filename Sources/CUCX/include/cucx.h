// The few functions of UCX that Braid uses: a worker sends records to another process's worker, or receives them, over
// whatever transport UCX finds between the two. The libraries are opened at run time, so a program that never calls
// `braid_ucx_load` needs none of them.
//
// A worker is used by one thread; only `braid_ucx_wake` may be called on others. No function but `braid_ucx_wait` and
// `braid_ucx_finish` waits, and none calls back: what happens is taken from the worker as events.
//
// Without UCX's headers at build time, or with BRAID_WITHOUT_UCX, all of these still exist, but `braid_ucx_load` fails and
// nothing else may be called.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    // Longer records are announced by their length, and are sent when the receiver fetches them.
    BRAID_UCX_MAX_UNANNOUNCED = 1024,
    // The bytes of what a sender shows with each record.
    BRAID_UCX_PASS = 16,
    // The bytes of a text that describes an error, with its end.
    BRAID_UCX_TEXT = 256,
};

// Opens the libraries, at the first call. Returns true if that was possible; otherwise `problem` says why not. Other
// threads must not use the environment or change the handlers of signals meanwhile: variables for UCX are set, and handlers
// of UCX, which would end the process, are replaced by the present ones.
bool braid_ucx_load(char problem[BRAID_UCX_TEXT]);

struct braid_ucx_worker;
// A record that the sender has announced. It may be used until it is fetched or its worker is finished.
struct braid_ucx_record;

// Creates a worker.
//
// `devices` is the list of network devices that it may use, and `transports` the list of transports, in the form of
// UCX_NET_DEVICES and UCX_TLS. NULL leaves the choice to these variables of the environment. A receiver ignores records
// that come without its `pass`.
//
// Returns NULL on an error, which `problem` describes.
struct braid_ucx_worker *braid_ucx_start(
    const char *devices, const char *transports, const uint8_t pass[BRAID_UCX_PASS], char problem[BRAID_UCX_TEXT]);

// Ends what is in progress, and frees the worker with everything that belongs to it. It takes a second at most.
void braid_ucx_finish(struct braid_ucx_worker *worker);

// Returns the `count` bytes of the worker's address, which are to be freed with `free`; NULL on an error.
void *braid_ucx_address(struct braid_ucx_worker *worker, uint64_t *count);

// Begins to connect to the worker with this address, once. BRAID_UCX_CONNECTED or BRAID_UCX_ENDED follows.
void braid_ucx_connect(struct braid_ucx_worker *worker, const void *address);

// Sends a record of `count` bytes at `bytes`, which were made by `malloc`; this takes them over. BRAID_UCX_SENT with `token`
// follows unless the connection ends.
void braid_ucx_send(struct braid_ucx_worker *worker, uint64_t token, void *bytes, uint64_t count);

// Begins to fetch an announced record. BRAID_UCX_FETCHED with `token` follows unless the connection ends.
void braid_ucx_fetch(struct braid_ucx_record *record, uint64_t token);

enum braid_ucx_kind {
    // The other worker can be reached.
    BRAID_UCX_CONNECTED,
    // A record came. `bytes` is to be freed with `free`.
    BRAID_UCX_CAME,
    // A record of `count` bytes waits at the other end to be fetched.
    BRAID_UCX_ANNOUNCED,
    // An announced record was fetched. `bytes` is to be freed with `free`.
    BRAID_UCX_FETCHED,
    // The other end has taken a record, or the system will deliver it.
    BRAID_UCX_SENT,
    // Something has failed, as `text` says. Nothing follows.
    BRAID_UCX_ENDED,
};

struct braid_ucx_event {
    enum braid_ucx_kind kind;
    struct braid_ucx_record *record;
    void *bytes;
    uint64_t count;
    uint64_t token;
    char text[BRAID_UCX_TEXT];
};

// Makes progress, and takes the next event. Returns false if there is none now.
bool braid_ucx_next(struct braid_ucx_worker *worker, struct braid_ucx_event *event);

// Waits until there may be progress, `braid_ucx_wake` is called, or some milliseconds have passed.
void braid_ucx_wait(struct braid_ucx_worker *worker, int32_t milliseconds);
// Ends the present wait, or the next one. The worker must not be finished meanwhile.
void braid_ucx_wake(struct braid_ucx_worker *worker);

#ifdef __cplusplus
}
#endif
