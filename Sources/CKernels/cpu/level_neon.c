// All kernels for 64-bit Arm, whose base instruction set suffices.
#if defined(__aarch64__)
#define BRAID_TABLE braid_neon
#define BRAID_TABLE_NAME "NEON"
#define BRAID_REGISTERS 8  // sixteen lanes are four registers, of 32
#include "table.h"
#endif
