// The few functions of MPI that Braid uses, without MPI's macros: one message at a time, and nothing that waits but start
// and end.
//
// Built where mpi.h was not found, all of it is there and `braid_mpi_is_built` is false; nothing else may be called then.
// One thread calls all of it. Sizes are bytes, multiples of BRAID_MPI_UNIT.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// MPI counts elements in 32 bits; with elements of this many bytes a message may have 128 GiB.
enum { BRAID_MPI_UNIT = 64 };

// Whether MPI was there when this was compiled.
bool braid_mpi_is_built(void);

// This process among those of the job.
struct braid_mpi_place {
    int32_t process;
    int32_t processes;
    // How many of them run on this host.
    int32_t processes_here;
};

// Joins the job. Errors are returned from now on, instead of ending the process. The calling thread's timers become as
// exact as the system can make them, as it polls.
//
// Returns 0, or MPI's error code.
int32_t braid_mpi_start(struct braid_mpi_place *place);

// Leaves the job; waits for the others to do so too.
void braid_mpi_finish(void);

// Ends all processes of the job.
void braid_mpi_abort(int32_t status);

// A message on its way. `braid_mpi_test` frees it.
struct braid_mpi_request;

// Begins to send. The bytes must stay as they are until the request is done. NULL on an error.
struct braid_mpi_request *braid_mpi_send(const void *bytes, int64_t count, int32_t process);

// A message that has come, from whomever.
struct braid_mpi_arrival {
    int32_t process;
    int64_t bytes;
    void *message;
};

// Looks for a message. Returns 1 where there is one, 0 where there is none, -1 on an error.
int32_t braid_mpi_probe(struct braid_mpi_arrival *arrival);

// Begins to receive what `braid_mpi_probe` found, into as many bytes. NULL on an error.
struct braid_mpi_request *braid_mpi_receive(void *bytes, const struct braid_mpi_arrival *arrival);

// Makes progress. Returns 1 once the request is done, which frees it; 0 before; -1 on an error, which frees it too.
int32_t braid_mpi_test(struct braid_mpi_request *request);

#ifdef __cplusplus
}
#endif
