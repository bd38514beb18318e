#include "cmpi.h"

#if __has_include(<mpi.h>)

#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

struct braid_mpi_request {
    MPI_Request request;
};

// A duplicate of the world communicator keeps these messages apart from any other use of MPI in the process.
static MPI_Comm communicator;
static MPI_Datatype unit;

enum { TAG = 1 };

bool braid_mpi_is_built(void) { return true; }

static int32_t meet(struct braid_mpi_place *place) {
    MPI_Comm here;
    int process, processes, processes_here, error;
    if ((error = MPI_Comm_dup(MPI_COMM_WORLD, &communicator))) return error;
    if ((error = MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN))) return error;
    if ((error = MPI_Type_contiguous(BRAID_MPI_UNIT, MPI_BYTE, &unit))) return error;
    if ((error = MPI_Type_commit(&unit))) return error;
    if ((error = MPI_Comm_rank(communicator, &process))) return error;
    if ((error = MPI_Comm_size(communicator, &processes))) return error;
    if ((error = MPI_Comm_split_type(communicator, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here))) return error;
    if ((error = MPI_Comm_size(here, &processes_here))) return error;
    if ((error = MPI_Comm_free(&here))) return error;
    *place = (struct braid_mpi_place){process, processes, processes_here};
    return 0;
}

int32_t braid_mpi_start(struct braid_mpi_place *place) {
#ifdef __linux__
    prctl(PR_SET_TIMERSLACK, 1UL);
#endif
    int provided;
    int error = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (error) return error;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    return meet(place);
}

void braid_mpi_finish(void) { MPI_Finalize(); }

void braid_mpi_abort(int32_t status) { MPI_Abort(MPI_COMM_WORLD, status); }

// Returns the request on the heap, or NULL if the MPI call failed.
static struct braid_mpi_request *kept(MPI_Request request, int error) {
    if (error) return NULL;
    struct braid_mpi_request *kept = malloc(sizeof *kept);
    if (!kept) abort();
    kept->request = request;
    return kept;
}

struct braid_mpi_request *braid_mpi_send(const void *bytes, int64_t count, int32_t process) {
    if (count % BRAID_MPI_UNIT || count / BRAID_MPI_UNIT > INT_MAX) return NULL;
    MPI_Request request;
    int error = MPI_Isend(bytes, (int)(count / BRAID_MPI_UNIT), unit, process, TAG, communicator, &request);
    return kept(request, error);
}

int32_t braid_mpi_probe(struct braid_mpi_arrival *arrival) {
    int found = 0, count = 0;
    MPI_Message message;
    MPI_Status status;
    if (MPI_Improbe(MPI_ANY_SOURCE, TAG, communicator, &found, &message, &status)) return -1;
    if (!found) return 0;
    if (MPI_Get_count(&status, unit, &count) || count == MPI_UNDEFINED) return -1;
    *arrival = (struct braid_mpi_arrival){status.MPI_SOURCE, (int64_t)count * BRAID_MPI_UNIT, message};
    return 1;
}

struct braid_mpi_request *braid_mpi_receive(void *bytes, const struct braid_mpi_arrival *arrival) {
    MPI_Message message = arrival->message;
    MPI_Request request;
    int error = MPI_Imrecv(bytes, (int)(arrival->bytes / BRAID_MPI_UNIT), unit, &message, &request);
    return kept(request, error);
}

int32_t braid_mpi_test(struct braid_mpi_request *request) {
    int done = 0;
    int error = MPI_Test(&request->request, &done, MPI_STATUS_IGNORE);
    if (!error && !done) return 0;
    free(request);
    return error ? -1 : 1;
}

#else

#include <stdlib.h>

bool braid_mpi_is_built(void) { return false; }
int32_t braid_mpi_start(struct braid_mpi_place *place) {
    (void)place;
    abort();
}
void braid_mpi_finish(void) { abort(); }
void braid_mpi_abort(int32_t status) {
    (void)status;
    abort();
}
struct braid_mpi_request *braid_mpi_send(const void *bytes, int64_t count, int32_t process) {
    (void)bytes, (void)count, (void)process;
    abort();
}
int32_t braid_mpi_probe(struct braid_mpi_arrival *arrival) {
    (void)arrival;
    abort();
}
struct braid_mpi_request *braid_mpi_receive(void *bytes, const struct braid_mpi_arrival *arrival) {
    (void)bytes, (void)arrival;
    abort();
}
int32_t braid_mpi_test(struct braid_mpi_request *request) {
    (void)request;
    abort();
}

#endif
