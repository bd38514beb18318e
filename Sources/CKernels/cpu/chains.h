// Chains of few rows, without a panel: sixteen weight rows, or keys, are transposed in registers as they are read, and
// each of their elements continues the chains of all rows.
#pragma once

#include "panel.h"

#if BRAID_REGISTERS >= 32
#define BRAID_FEW_ROWS 8    // rows side by side
#define BRAID_FEW_GROUPS 2  // groups of sixteen outputs side by side, at most
#else
#define BRAID_FEW_ROWS 4
#define BRAID_FEW_GROUPS 1
#endif

#define BRAID_AHEAD 512  // without a panel, each weight row is prefetched this many bytes ahead

/// The bytes of a weight row that are read before those of the next rows, counted from the first byte of the product that
/// reads them: all of the product's, or those of several products that are K-slices of one row.
typedef struct {
    int64_t begin, end;
} braid_row_bytes;

/// Returns the offset of the bytes to prefetch while those at `offset` are read; the next rows are `next` bytes further.
BRAID_INLINE int64_t ahead_of(int64_t offset, braid_row_bytes row, int64_t next) {
    const int64_t bytes = row.end - row.begin, ahead = offset + at_most(BRAID_AHEAD, bytes);
    return ahead < row.end ? ahead : ahead + next - bytes;
}

/// Continues the chains of `m` rows with elements of `groups` times sixteen weight rows, which are transposed in `v`.
/// All arguments but `count` and `k` are constants, and so is `count` except at the end.
BRAID_INLINE void dot_chains(
    braid_dtype dtype, int m, int groups, const u16 v[BRAID_FEW_GROUPS][16], int64_t count, const f16 *scale,
    const float *const *x, int64_t k, f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    const int each = (int)(4 / bytes_of(dtype));
    const int together = each == 4 ? 1 : 16;  // 64 unrolled elements would exceed the decoded-instruction cache
    for (int first = 0; first < 16; first += together)
        BRAID_UNROLL for (int j = first; j < first + together; j++)
            BRAID_UNROLL for (int e = 0; e < each; e++) {
                if (j * each + e >= count) return;
                BRAID_UNROLL for (int g = 0; g < groups; g++) {
                    f16 w = widen_element(dtype, v[g][j], e, scale[g]);
                    BRAID_UNROLL for (int r = 0; r < m; r++)
                        a[g][r] = fma16(splat(x[r][k + j * each + e]), w, a[g][r]);
                }
            }
}
