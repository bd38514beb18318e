// The few functions of MPI that Braid uses, without MPI's macros. Messages are sent and received one at a time, and
// only start and finish wait.
//
// Without mpi.h at build time all of these still exist, but `braid_mpi_is_built` returns false and nothing else may be
// called. A single thread makes all calls. Sizes are in bytes and multiples of BRAID_MPI_UNIT.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// MPI counts elements in 32 bits. With elements of this many bytes a message may have 128 GiB.
enum { BRAID_MPI_UNIT = 64 };

// Returns true if mpi.h was found when this was compiled.
bool braid_mpi_is_built(void);

// The place of this process among the processes of the job.
struct braid_mpi_place {
    int32_t process;
    int32_t processes;
    // The number of the job's processes on this host.
    int32_t processes_here;
};

// Joins the job. From now on MPI returns errors instead of ending the process. The calling thread polls, so its timers
// become as exact as the system allows.
//
// Returns 0, or MPI's error code.
int32_t braid_mpi_start(struct braid_mpi_place *place);

// Leaves the job, and waits until all processes leave it.
void braid_mpi_finish(void);

// Ends all processes of the job.
void braid_mpi_abort(int32_t status);

// A message in progress. `braid_mpi_test` frees it.
struct braid_mpi_request;

// Begins to send `count` bytes, which must not change until the request is done. Returns NULL on an error.
struct braid_mpi_request *braid_mpi_send(const void *bytes, int64_t count, int32_t process);

// A message that has arrived, from any process.
struct braid_mpi_arrival {
    int32_t process;
    int64_t bytes;
    void *message;
};

// Looks for a message that has arrived. Returns 1 if there is one, 0 if there is none, -1 on an error.
int32_t braid_mpi_probe(struct braid_mpi_arrival *arrival);

// Begins to receive the message that `braid_mpi_probe` found, into `arrival->bytes` bytes. Returns NULL on an error.
struct braid_mpi_request *braid_mpi_receive(void *bytes, const struct braid_mpi_arrival *arrival);

// Makes progress. Returns 1 once the request is done, 0 before, and -1 on an error. 1 and -1 free the request.
int32_t braid_mpi_test(struct braid_mpi_request *request);

#ifdef __cplusplus
}
#endif
