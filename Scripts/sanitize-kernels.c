// Calls every kernel of every level that this processor has with random odd shapes, and compares what it writes with
// what the reference writes, bit for bit. Built with sanitizers by Scripts/sanitize-kernels: every array is exactly as
// long as its kernel may know, so that reading or writing beside it is reported.
//
// sanitize-kernels SECONDS [SEED]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../Sources/CKernels/include/ckernels.h"

// A kernel that is new in the table needs a trial below.
_Static_assert(sizeof(braid_kernels) == 39 * sizeof(void *), "every kernel of the table has a trial");

// ------------------------------------------------------------------------------------------------------- random numbers

static uint64_t state;

static uint64_t draw(void) {
    uint64_t z = state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static int64_t from_to(int64_t least, int64_t most) { return least + (int64_t)(draw() % (uint64_t)(most - least + 1)); }
static bool flag(void) { return draw() >> 63; }

/// A width: often near a multiple of sixteen, rarely large.
static int64_t width(void) {
    if (from_to(0, 15) == 0) return from_to(1, 700);
    return flag() ? from_to(1, 8) * 16 : from_to(1, 140);
}

/// What numbers are multiplied by: in some trials products of two come close to the smallest normal number.
static float magnitude = 1;

static float number(void) { return (float)(int32_t)draw() * 0x1p-30f * magnitude; }

static float power_of_two(void) {
    float value = 1;
    for (int64_t i = from_to(0, 12); i > 0; i--) value *= 0.5f;
    return value;
}

static braid_profile profile(void) { return flag() ? BRAID_PROFILE_F32 : BRAID_PROFILE_BF16; }
static braid_profile product_profile(void) { return (braid_profile)from_to(0, 3); }

/// Also what is not finite, and what is subnormal.
static float wild(void) {
    static const float special[] = {0, -0.0f, 1e-40f, -1e-40f, 3e38f, -3e38f};
    int64_t which = from_to(0, 40);
    if (which < 6) return special[which];
    if (which < 9) return which == 6 ? __builtin_inff() : which == 7 ? -__builtin_inff() : __builtin_nanf("");
    return number() * 8;
}

// --------------------------------------------------------------------------------------------------------------- memory

/// What a trial has allocated.
static void *blocks[128];
static int block_count;

static void *block(int64_t bytes) {
    if (block_count == 128) abort();
    void *memory = malloc((size_t)bytes);
    if (!memory) abort();
    return blocks[block_count++] = memory;
}

/// Elements from the first of `rows` rows to behind the last; none where there are no rows.
static int64_t extent(int64_t rows, int64_t stride, int64_t columns) {
    return rows == 0 ? 0 : (rows - 1) * stride + columns;
}

static float *floats(int64_t count, float (*make)(void)) {
    float *values = block(count * 4);
    for (int64_t i = 0; i < count; i++) values[i] = make();
    return values;
}

static float *aligned(int64_t count) {
    void *memory;
    if (block_count == 128 || posix_memalign(&memory, 64, (size_t)count * 4)) abort();
    blocks[block_count++] = memory;
    return memset(memory, 0xA5, (size_t)count * 4);
}

/// Different numbers of `0 ..< bound` in random order.
static int32_t *shuffled(int64_t count, int64_t bound) {
    int32_t *all = block(bound * 4), *some = block(count * 4);
    for (int64_t i = 0; i < bound; i++) all[i] = (int32_t)i;
    for (int64_t i = 0; i < count; i++) {
        int64_t other = from_to(i, bound - 1);
        some[i] = all[other];
        all[other] = all[i];
    }
    return some;
}

/// What a kernel writes: the same bytes twice, once for the reference. Which of them a call gets, `turn` says.
typedef struct {
    char *memory[2];
    int64_t bytes;
    bool is_float;
} twin;

static twin outputs[6];
static int output_count;
static int turn;

/// - from: what is in it before, or NULL for a pattern.
static int output(int64_t bytes, bool is_float, const void *from) {
    twin *t = &outputs[output_count];
    *t = (twin){.bytes = bytes, .is_float = is_float};
    for (int i = 0; i < 2; i++) {
        t->memory[i] = block(bytes);
        if (from) memcpy(t->memory[i], from, (size_t)bytes);
        else memset(t->memory[i], 0x5A, (size_t)bytes);
    }
    return output_count++;
}

static void *of(int number) { return outputs[number].memory[turn]; }

/// Bit for bit, but for what a NaN carries.
static bool are_equal(const twin *t) {
    if (!t->is_float) return memcmp(t->memory[0], t->memory[1], (size_t)t->bytes) == 0;
    const float *a = (const float *)t->memory[0], *b = (const float *)t->memory[1];
    for (int64_t i = 0; i < t->bytes / 4; i++) {
        if (memcmp(a + i, b + i, 4) && !(a[i] != a[i] && b[i] != b[i])) return false;
    }
    return true;
}

/// Calls both levels with the parameters `p`, which get their outputs before each call.
#define BOTH(operation, ...)                               \
    for (turn = 0; turn < 2; turn++) {                     \
        __VA_ARGS__;                                       \
        (turn ? fast : reference)->operation(&p);          \
    }

/// FNV-1a over what both wrote, NaNs being all the same one.
static uint64_t digest(const twin *t, uint64_t value) {
    for (int64_t i = 0; i < t->bytes; i++) {
        unsigned char byte = (unsigned char)t->memory[1][i];
        float number = 0;
        if (t->is_float) memcpy(&number, t->memory[1] + i / 4 * 4, 4);
        value = (value ^ (number != number ? 0x7F : byte)) * 0x100000001B3;
    }
    return value;
}

typedef void (*trial)(const braid_kernels *reference, const braid_kernels *fast);

// --------------------------------------------------------------------------------------------------- stored numbers

static int64_t bytes_of(braid_dtype type) { return type == BRAID_F32 ? 4 : type == BRAID_BF16 ? 2 : 1; }

/// Finite numbers of a type.
static void *stored(int64_t count, braid_dtype type) {
    char *data = block(count * bytes_of(type));
    for (int64_t i = 0; i < count; i++) {
        float value = number();
        uint8_t byte = (uint8_t)draw();
        if (type == BRAID_FP8 && (byte & 0x7F) == 0x7F) byte = 0x70;
        if (type == BRAID_F32) memcpy(data + 4 * i, &value, 4);
        else if (type == BRAID_BF16) memcpy(data + 2 * i, (char *)&value + 2, 2);
        else data[i] = (char)byte;
    }
    return data;
}

/// A part of a matrix of FP4 weights: usually with scales where checkpoints have them.
static braid_weight fp4_weight(int64_t rows, int64_t columns) {
    braid_weight w = {.dtype = BRAID_FP4, .stride = columns + columns % 2 + 2 * from_to(0, 5), .column_shift = 5};
    if (!flag()) w.row_shift = (int32_t)from_to(0, 8), w.column_shift = (int32_t)from_to(0, 8);
    w.row = flag() ? from_to(0, 200) : 0;
    w.column = flag() ? 2 * from_to(0, 100) : 0;
    w.data = stored((extent(rows, w.stride, columns) + 1) / 2, BRAID_FP4);
    w.scale_stride = columns == 0 ? 1 : ((w.column + columns - 1) >> w.column_shift) + 1;
    const int64_t scales = rows == 0 ? 0 : (((w.row + rows - 1) >> w.row_shift) + 1) * w.scale_stride;
    uint8_t *bytes = block(scales);
    for (int64_t i = 0; i < scales; i++) bytes[i] = (uint8_t)(flag() ? from_to(110, 140) : from_to(0, 254));
    w.scale = bytes;
    return w;
}

/// Rounding of activations that is fixed for a matrix, with any corrections of the sums.
static const braid_static_rounding *static_rounding(int64_t rows, int64_t columns) {
    braid_static_rounding *rounding = block(sizeof *rounding);
    *rounding = (braid_static_rounding){.scale = (float)from_to(1, 1000) * 0x1p-9f, .offset = (int32_t)from_to(-128, 127)};
    rounding->part_columns = from_to(1, columns + 1);
    rounding->parts = columns / rounding->part_columns + 1;
    int32_t *corrections = block(4 * rows * rounding->parts);
    for (int64_t i = 0; i < rows * rounding->parts; i++) corrections[i] = (int32_t)from_to(-100000, 100000);
    rounding->corrections = corrections;
    return rounding;
}

/// A part of a matrix of weights.
static braid_weight weight_of(braid_dtype type, int64_t rows, int64_t columns) {
    braid_weight w = {.dtype = type, .stride = columns + from_to(0, 9)};
    w.row = flag() ? from_to(0, 200) : 0;
    w.column = flag() ? from_to(0, 200) : 0;
    w.data = stored(extent(rows, w.stride, columns), w.dtype);
    if (w.dtype != BRAID_FP8 && w.dtype != BRAID_INT8) return w;
    const bool per_row = flag();
    w.row_shift = per_row ? 0 : flag() ? 7 : (int32_t)from_to(0, 8);
    w.column_shift = per_row ? BRAID_WHOLE_SHIFT : flag() ? 7 : (int32_t)from_to(0, 8);
    w.scale_stride = columns == 0 ? 1 : ((w.column + columns - 1) >> w.column_shift) + 1;
    w.scale = floats(rows == 0 ? 0 : (((w.row + rows - 1) >> w.row_shift) + 1) * w.scale_stride, flag() ? number : power_of_two);
    if (type == BRAID_INT8 && flag()) w.rounding = static_rounding(w.row + rows, w.column + columns);
    return w;
}

static braid_weight weight(int64_t rows, int64_t columns) {
    const braid_dtype type = (braid_dtype)from_to(0, 4);
    return type == BRAID_FP4 ? fp4_weight(rows, columns) : weight_of(type, rows, columns);
}

/// Ascending numbers below a bound that are not all of them, if there are more.
static void ascending(int32_t *numbers, int64_t count, int64_t bound) {
    int64_t next = 0;
    for (int64_t i = 0; i < count; i++) {
        next += from_to(0, (bound - next - (count - i)) / (flag() ? 1 : 4));
        numbers[i] = (int32_t)next++;
    }
}

/// Pages for so many positions, in no order.
typedef struct {
    int32_t shift;
    int64_t entries;
    const int32_t *pages;
} paging;

static paging page_map(int64_t positions) {
    paging map = {.shift = (int32_t)from_to(0, 6)};
    int64_t pages = (positions + (1 << map.shift) - 1) >> map.shift, all = pages + from_to(0, 2);
    map.entries = all << map.shift;
    map.pages = shuffled(pages, all);
    return map;
}

static braid_lane lane(paging map, int64_t columns, bool is_index) {
    braid_lane lane = {.dtype = (braid_dtype)from_to(0, 2), .width = columns};
    if (is_index && from_to(0, 3) == 0) lane.dtype = BRAID_FP4;
    lane.group = flag() ? 16 * from_to(1, 10) : columns + from_to(0, 3);
    if (lane.group == 0 || (lane.dtype == BRAID_FP4 && flag())) lane.group = 32;
    lane.scale_type = lane.dtype == BRAID_FP4 ? BRAID_SCALE_E8M0 : (braid_scale_type)flag();
    int64_t bytes = braid_entry_bytes(lane.dtype, columns, lane.group, lane.scale_type);
    if (!braid_lane_has_scales(lane.dtype)) {
        lane.data = stored(map.entries * columns, lane.dtype);
        return lane;
    }
    char *data = block(map.entries * bytes);
    for (int64_t entry = 0; entry < map.entries; entry++) {
        char *values = data + entry * bytes;
        memset(values, 0, (size_t)bytes);
        const bool is_fp4 = lane.dtype == BRAID_FP4;
        for (int64_t i = 0; i < braid_value_bytes(lane.dtype, columns); i++) values[i] = (char)from_to(0, is_fp4 ? 0xFF : 0x7E);
        char *scales = values + braid_scales_offset(lane.dtype, columns);
        for (int64_t i = 0; i * lane.group < columns; i++) {
            float scale = number() / 100;
            if (lane.scale_type == BRAID_SCALE_E8M0) scales[i] = (char)(from_to(0, 15) ? from_to(110, 127) : from_to(0, 255));
            else memcpy(scales + 4 * i, &scale, 4);
        }
    }
    lane.data = data;
    return lane;
}

// --------------------------------------------------------------------------------------------------------------- trials

static void try_embedding(const braid_kernels *reference, const braid_kernels *fast) {
    int64_t rows = from_to(1, 40), n = width();
    braid_embedding p = {.w = weight(rows, n), .m = from_to(0, 7), .n = n, .out_stride = n + from_to(0, 5)};
    int32_t *ids = block(p.m * 4);
    for (int64_t i = 0; i < p.m; i++) ids[i] = (int32_t)from_to(0, rows - 1);
    p.ids = ids;
    int out = output(extent(p.m, p.out_stride, n) * 4, true, NULL);
    BOTH(embedding, p.out = of(out));
}

/// Returns the number of rows of a product: few, and at times more than tiles have side by side, or than share weights.
static int64_t product_rows(void) { return from_to(0, 15) == 0 ? from_to(30, 290) : from_to(0, flag() ? 4 : 30); }

static void try_matmul(const braid_kernels *reference, const braid_kernels *fast) {
    braid_matmul p = {.profile = product_profile(), .transposed = flag(), .accumulate = flag(), .m = product_rows(), .n = width()};
    p.k = from_to(0, 20) == 0 ? 0 : from_to(0, 20) == 0 ? from_to(480, 1100) : width();
    if (from_to(0, 99) == 0) {  // rows whose terms exceed the scratch
        p.m = from_to(0, 1) ? 65 : from_to(1, 64);
        p.n = from_to(1, 2);
        p.k = from_to(60, 140) * 1000 + from_to(0, 40);
    }
    p.w = p.transposed ? weight(p.k, p.n) : weight(p.n, p.k);
    int64_t rows = p.m + from_to(0, 3), out_rows = p.m + from_to(0, 3);
    p.x_stride = p.k + from_to(0, 5);
    p.out_stride = p.n + from_to(0, 5);
    if (flag()) p.x_rows = shuffled(p.m, rows);
    if (flag()) p.out_rows = shuffled(p.m, out_rows);
    p.x = floats(extent(p.x_rows ? rows : p.m, p.x_stride, p.k), number);
    p.gemv_max_rows = flag() ? 0 : from_to(1, 20);
    p.scratch = aligned(BRAID_MATMUL_SCRATCH);
    int64_t count = extent(p.out_rows ? out_rows : p.m, p.out_stride, p.n);
    int out = output(count * 4, true, floats(count, number));
    BOTH(matmul, p.out = of(out));
}

static void try_batched_matmul(const braid_kernels *reference, const braid_kernels *fast) {
    braid_batched_matmul p = {.count = from_to(0, 5)};
    braid_matmul *q = &p.product;
    *q = (braid_matmul){.profile = product_profile(), .transposed = flag(), .m = product_rows(), .n = from_to(1, 70), .k = from_to(1, 70)};
    int64_t before = p.count > 0 ? p.count - 1 : 0;
    p.x_step = from_to(0, q->k + 5);
    p.out_step = q->n + from_to(0, 5);
    p.w_step = from_to(0, (q->transposed ? q->k : q->n) + 5);
    q->w = weight(before * p.w_step + (q->transposed ? q->k : q->n), q->transposed ? q->n : q->k);
    int64_t x_columns = before * p.x_step + q->k, out_columns = before * p.out_step + q->n;
    q->x_stride = x_columns + from_to(0, 5);
    q->out_stride = out_columns + from_to(0, 5);
    q->x = floats(extent(q->m, q->x_stride, x_columns), number);
    q->gemv_max_rows = flag() ? 0 : from_to(1, 20);
    q->scratch = aligned(BRAID_MATMUL_SCRATCH);
    int out = output(extent(q->m, q->out_stride, out_columns) * 4, true, NULL);
    BOTH(batched_matmul, q->out = of(out));
}

static void try_sliced_matmul(const braid_kernels *reference, const braid_kernels *fast) {
    braid_sliced_matmul p = {.slices = 1 << from_to(0, 4)};
    braid_matmul *q = &p.product;
    // Rarely more outputs than a block has.
    bool is_large = from_to(0, 19) == 0;
    q->profile = product_profile();
    q->m = is_large ? from_to(60, 290) : from_to(0, flag() ? 4 : 30);
    q->n = is_large ? from_to(200, 400) : width();
    q->k = p.slices * (flag() ? from_to(1, is_large ? 2 : 20) : 64 * from_to(1, 2));
    if (from_to(0, 29) == 0) {  // slices that are multiplied in several blocks
        q->m = from_to(60, 110);
        q->n = from_to(1, 40);
        p.slices = 1 << from_to(1, 2);
        q->k = p.slices * (flag() ? from_to(500, 700) : 64 * from_to(15, 20));
    }
    q->w = weight(q->n, q->k);
    q->x_stride = q->k + from_to(0, 5);
    q->out_stride = q->n + from_to(0, 5);
    q->x = floats(extent(q->m, q->x_stride, q->k), number);
    q->gemv_max_rows = flag() ? 0 : from_to(1, 20);
    q->scratch = aligned(BRAID_MATMUL_SCRATCH);
    p.partial = aligned(braid_sliced_scratch(q->profile, q->m, p.slices));
    int out = output(extent(q->m, q->out_stride, q->n) * 4, true, NULL);
    BOTH(sliced_matmul, q->out = of(out));
}

static braid_norm norm(void) {
    braid_norm p = {.m = from_to(0, 9), .n = width(), .eps = 1e-6f};
    p.x_stride = p.out_stride = p.n + from_to(0, 5);
    p.weight = floats(p.n, number);
    p.bias = floats(p.n, number);
    p.x = floats(extent(p.m, p.x_stride, p.n), flag() ? number : wild);
    return p;
}

/// In place, or not.
#define TRY_ROWS(name, type, make)                                                                 \
    static void try_##name(const braid_kernels *reference, const braid_kernels *fast) {            \
        type p = make;                                                                             \
        bool in_place = flag();                                                                    \
        const float *x = p.x;                                                                      \
        if (!in_place) p.out_stride = p.n + from_to(0, 5);                                         \
        int64_t count = extent(p.m, p.out_stride, p.n);                                            \
        int out = output(count * 4, true, in_place ? x : NULL);                                    \
        BOTH(name, p.out = of(out), p.x = in_place ? p.out : x);                              \
    }

TRY_ROWS(rms_norm, braid_norm, norm())
TRY_ROWS(layer_norm, braid_norm, norm())

static braid_softmax softmax(void) {
    braid_softmax p = {.m = from_to(0, 9), .n = width()};
    p.x_stride = p.out_stride = p.n + from_to(0, 5);
    p.x = floats(extent(p.m, p.x_stride, p.n), from_to(0, 3) ? number : wild);
    return p;
}

TRY_ROWS(softmax, braid_softmax, softmax())
TRY_ROWS(log_softmax, braid_softmax, softmax())

static void try_rope(const braid_kernels *reference, const braid_kernels *fast) {
    braid_rope p = {.m = from_to(0, 7), .heads = from_to(1, 9), .width = 2 * from_to(1, 40), .interleaved = flag()};
    p.head_stride = p.width + from_to(0, 30);
    p.x_stride = extent(p.heads, p.head_stride, p.width) + from_to(0, 5);
    p.cosine = floats(p.m * (p.width / 2), number);
    p.sine = floats(p.m * (p.width / 2), number);
    int64_t count = extent(p.m, p.x_stride, extent(p.heads, p.head_stride, p.width));
    int x = output(count * 4, true, floats(count, number));
    BOTH(rope, p.x = of(x));
}

static void try_add(const braid_kernels *reference, const braid_kernels *fast) {
    braid_add p = {.m = from_to(0, 9), .n = width()};
    p.a_stride = p.out_stride = p.n + from_to(0, 5);
    p.b_stride = p.n + from_to(0, 5);
    const float *a = floats(extent(p.m, p.a_stride, p.n), wild);
    p.b = floats(extent(p.m, p.b_stride, p.n), wild);
    bool in_place = flag();
    int out = output(extent(p.m, p.out_stride, p.n) * 4, true, in_place ? a : NULL);
    BOTH(add, p.out = of(out), p.a = in_place ? p.out : a);
}

static void try_copy_rows(const braid_kernels *reference, const braid_kernels *fast) {
    braid_copy_rows p = {.m = from_to(0, 9), .pieces = from_to(0, 4), .n = from_to(0, 40)};
    p.x_step = from_to(0, p.n + 3);
    p.out_step = p.n + from_to(0, 3);
    int64_t rows = p.m + from_to(0, 3), out_rows = p.m + from_to(0, 3);
    int64_t columns = extent(p.pieces, p.x_step, p.n), out_columns = extent(p.pieces, p.out_step, p.n);
    p.x_stride = columns + from_to(0, 5);
    p.out_stride = out_columns + from_to(0, 5);
    if (flag()) p.x_rows = shuffled(p.m, rows);
    if (flag()) p.out_rows = shuffled(p.m, out_rows);
    p.x = floats(extent(p.x_rows ? rows : p.m, p.x_stride, columns), wild);
    int out = output(extent(p.out_rows ? out_rows : p.m, p.out_stride, out_columns) * 4, false, NULL);
    BOTH(copy_rows, p.out = of(out));
}

static void try_scale(const braid_kernels *reference, const braid_kernels *fast) {
    braid_scale p = {.m = from_to(0, 9), .n = width(), .factor = number()};
    p.x_stride = p.n + from_to(0, 5);
    int64_t count = extent(p.m, p.x_stride, p.n);
    int x = output(count * 4, true, floats(count, wild));
    BOTH(scale, p.x = of(x));
}

static void try_swiglu(const braid_kernels *reference, const braid_kernels *fast) {
    braid_swiglu p = {.m = from_to(0, 9), .n = width()};
    p.gate_stride = p.out_stride = p.n + from_to(0, 5);
    p.up_stride = p.n + from_to(0, 5);
    const float *gate = floats(extent(p.m, p.gate_stride, p.n), flag() ? number : wild);
    p.up = floats(extent(p.m, p.up_stride, p.n), number);
    if (flag()) p.row_weight = floats(p.m, number);
    bool in_place = flag();
    int out = output(extent(p.m, p.out_stride, p.n) * 4, true, in_place ? gate : NULL);
    BOTH(swiglu, p.out = of(out), p.gate = in_place ? p.out : gate);
}

static void try_index_scores(const braid_kernels *reference, const braid_kernels *fast) {
    // Rarely more keys than are packed at once, and more heads than are added at once.
    const bool is_large = from_to(0, 19) == 0;
    braid_index_scores p = {.profile = profile(), .m = from_to(0, is_large ? 2 : 9), .first = from_to(0, 40)};
    p.heads = is_large ? from_to(1, 130) : from_to(1, flag() ? 5 : 33);
    p.count = from_to(0, is_large ? 700 : 150);
    p.owned = flag() ? (braid_kv_sharding){1, 1, 0} : (braid_kv_sharding){from_to(2, 5), from_to(1, 3), 0};
    p.owned.rank = from_to(0, p.owned.ranks - 1);
    paging map = page_map(braid_sharded(p.owned, p.first + p.count) + 1);
    p.pages = map.pages;
    p.page_shift = map.shift;
    p.keys = lane(map, flag() ? 128 : from_to(0, 15) ? from_to(1, 140) : BRAID_MAX_INDEX_WIDTH, true);
    p.q = floats(p.m * p.heads * p.keys.width, number);
    p.weights = floats(p.m * p.heads, number);
    p.scores_stride = p.count + from_to(0, 4);
    p.index_key_tiles = flag() ? 0 : from_to(1, 12);
    p.scratch = aligned(BRAID_INDEX_SCRATCH);
    int scores = output(extent(p.m, p.scores_stride, p.count) * 4, true, NULL);
    BOTH(index_scores, p.scores = of(scores));
}

static float rounded_wild(void) { return flag() ? wild() : (float)from_to(-3, 3); }

static void try_top_k(const braid_kernels *reference, const braid_kernels *fast) {
    braid_top_k p = {.m = from_to(0, 5), .k = from_to(1, 90)};
    int64_t most = flag() ? 60 : 900;
    int32_t *visible = block(p.m * 4);
    for (int64_t r = 0; r < p.m; r++) visible[r] = (int32_t)from_to(0, most);
    p.visible = visible;
    p.scores_stride = most + from_to(0, 4);
    p.scores = floats(p.m == 0 ? 0 : (p.m - 1) * p.scores_stride + visible[p.m - 1], rounded_wild);
    p.selected_stride = p.k + from_to(0, 4);
    p.scratch = (uint32_t *)aligned(BRAID_TOP_K_SCRATCH);
    int selected = output(extent(p.m, p.selected_stride, p.k) * 4, false, NULL);
    int counts = output(p.m * 4, false, NULL);
    BOTH(top_k, p.selected = of(selected), p.counts = of(counts));
    // Elements after a row's count are unspecified.
    for (turn = 0; turn < 2; turn++) {
        for (int64_t r = 0; r < p.m; r++) {
            for (int64_t i = ((int32_t *)of(counts))[r]; i < p.k; i++) {
                ((int32_t *)of(selected))[r * p.selected_stride + i] = -1;
            }
        }
    }
}

static braid_kv_sharding sharding(void) {
    braid_kv_sharding owned = {from_to(1, 5), 1, 0};
    if (owned.ranks > 1) owned.unit = from_to(1, 3);
    owned.rank = from_to(0, owned.ranks - 1);
    return owned;
}

static void try_pack_candidates(const braid_kernels *reference, const braid_kernels *fast) {
    braid_pack_candidates p = {.m = from_to(0, 6), .k = from_to(1, 40), .owned = sharding()};
    int64_t numbers = p.k + from_to(0, 60);
    p.scores_stride = numbers + from_to(0, 5);
    p.scores = floats(extent(p.m, p.scores_stride, numbers), wild);
    int32_t *selected = block(p.m * p.k * 4), *counts = block(p.m * 4);
    for (int64_t r = 0; r < p.m; r++) {
        counts[r] = (int32_t)from_to(0, p.k);
        ascending(selected + r * p.k, p.k, numbers);
    }
    p.selected = selected;
    p.counts = counts;
    p.out_stride = 1 + 2 * p.k + from_to(0, 5);
    int out = output(extent(p.m, p.out_stride, 1 + 2 * p.k) * 4, false, NULL);
    BOTH(pack_candidates, p.out = of(out));
}

/// Candidates of all ranks: right ones, or what a rank may not send.
static float *candidate_rows(const braid_merge_candidates *p, bool is_hostile) {
    float *rows = floats(extent(p->ranks * p->rank_rows, p->stride, 1 + 2 * p->k), rounded_wild);
    for (int64_t i = 0; i < p->ranks * p->rank_rows; i++) {
        int32_t *words = (int32_t *)(rows + i * p->stride), *positions = words + 1 + p->k;
        words[0] = is_hostile && flag() ? (int32_t)draw() : (int32_t)from_to(p->k / 2, p->k);
        ascending(positions, p->k, p->k + 20);
        for (int64_t j = 0; j < p->k; j++) {
            positions[j] = positions[j] * (int32_t)p->ranks + (int32_t)(i / p->rank_rows);
            if (is_hostile && from_to(0, 9) == 0) positions[j] = (int32_t)(flag() ? draw() : draw() % 40);
        }
    }
    return rows;
}

static void try_merge_candidates(const braid_kernels *reference, const braid_kernels *fast) {
    braid_merge_candidates p = {.m = from_to(0, 6), .k = from_to(1, 40), .ranks = from_to(1, 5)};
    p.rank_rows = p.m + from_to(0, 2);
    p.stride = 1 + 2 * p.k + from_to(0, 5);
    p.candidates = candidate_rows(&p, flag());
    p.rows = shuffled(p.m, p.rank_rows);
    int32_t *last = block(p.m * 4);
    for (int64_t r = 0; r < p.m; r++) last[r] = (int32_t)from_to(0, 400);
    p.last = last;
    int64_t out_rows = p.m + from_to(0, 2);
    p.out_rows = shuffled(p.m, out_rows);
    p.scratch = (uint32_t *)aligned(braid_merge_scratch(p.ranks, p.k));
    int selected = output(out_rows * p.k * 4, false, NULL);
    BOTH(merge_candidates, p.selected = of(selected));
}

static void try_sharded_keys(const braid_kernels *reference, const braid_kernels *fast) {
    braid_sharded_keys p = {.m = from_to(0, 6), .k = flag() ? 0 : from_to(1, 40), .owned = sharding()};
    int64_t longest = from_to(0, 90);
    int32_t *positions = block(p.m * 4);
    p.selected_stride = p.k + from_to(0, 5);
    int32_t *selected = block(extent(p.m, p.selected_stride, p.k) * 4);
    for (int64_t r = 0; r < p.m; r++) {
        positions[r] = (int32_t)from_to(0, longest);
        if (positions[r] >= p.k) ascending(selected + r * p.selected_stride, p.k, positions[r] + 1);
    }
    p.positions = positions;
    p.selected = p.k == 0 ? NULL : selected;
    p.keys_stride = longest + 1;
    int64_t all = 5;
    int keys = output(extent(p.m, p.keys_stride, longest + 1) * 4, false, NULL);
    int counts = output(p.m * 4, false, NULL), total = output(8, false, &all);
    BOTH(sharded_keys, p.keys = of(keys), p.counts = of(counts), p.total = of(total));
}

/// Gives every row some of the keys it sees; how many the row with most has.
static int64_t select_keys(braid_attention *p) {
    int64_t most = 1, residue = flag() ? from_to(0, 7) : -1;
    int32_t *count = block(p->m * 4);
    for (int64_t r = 0; r < p->m; r++) most = p->positions[r] + 1 > most ? p->positions[r] + 1 : most;
    int32_t *selected = block(p->m * most * 4);
    for (int64_t r = 0; r < p->m; r++) {
        count[r] = 0;
        for (int32_t i = 0; i <= p->positions[r]; i++) {
            if (residue < 0 ? flag() : i % 8 == residue) selected[r * most + count[r]++] = i;
        }
    }
    p->selected = selected;
    p->selected_stride = most;
    p->selected_count = count;
    return most;
}

static void try_attention(const braid_kernels *reference, const braid_kernels *fast) {
    static const int64_t tiled[] = {32, 64, 128, 160, 512};
    braid_attention p = {.m = from_to(0, 3), .heads = from_to(1, flag() ? 9 : 30), .scale = 0.2f};
    p.profile = profile();
    p.rotary_values = flag();
    int64_t longest = from_to(0, 7) ? 60 : 700, most = 1;
    if (from_to(0, 9) == 0) {  // so many heads only with few keys, because the reference is slow
        p.heads = from_to(1, 130);
        longest = 60;
    }
    const bool is_long = from_to(0, 39) == 0;  // several parts of a class's keys, so narrow ones
    if (is_long) {
        p.heads = from_to(1, 3);
        longest = 6000;
    }
    int32_t *positions = block(p.m * 4);
    for (int64_t r = 0; r < p.m; r++) {
        positions[r] = (int32_t)from_to(is_long ? 4000 : 0, longest);
        most = positions[r] + 1 > most ? positions[r] + 1 : most;
    }
    p.positions = positions;
    paging map = page_map(longest + 1);
    p.pages = map.pages;
    p.page_shift = map.shift;
    p.latent = lane(map, is_long ? from_to(1, 40) : flag() ? tiled[from_to(0, 4)] : from_to(1, 150), false);
    p.rope = lane(map, flag() ? 16 * from_to(0, 4) : from_to(0, 64), false);
    int64_t per_head = p.latent.width + p.rope.width;
    p.q_stride = p.heads * per_head + from_to(0, 3);
    p.q = floats(extent(p.m, p.q_stride, p.heads * per_head), number);
    if (flag()) most = select_keys(&p);
    p.class_stride = 1 << from_to(0, 3);
    p.class_offset = (int32_t)from_to(0, p.class_stride - 1);
    const int64_t value = braid_value_width(&p);
    p.out_stride = p.heads * value + from_to(0, 3);
    p.direct_key_max_heads = flag() ? 0 : from_to(1, 40);
    p.scratch = aligned(braid_attention_scratch(p.heads, value, most));
    int out = output(extent(p.m, p.out_stride, p.heads * value) * 4, true, NULL);
    int lse = output(p.m * p.heads * 4, true, NULL);
    BOTH(attention, p.out = of(out), p.lse = of(lse));
}

static float maybe_empty(void) { return from_to(0, 3) ? number() : -__builtin_inff(); }

static void try_merge_attention(const braid_kernels *reference, const braid_kernels *fast) {
    braid_merge p = {.m = from_to(0, 5), .heads = from_to(1, 9), .width = width()};
    int64_t rows = p.m * p.heads;
    p.b = floats(rows * p.width, number);
    p.b_lse = floats(rows, maybe_empty);
    int a = output(rows * p.width * 4, true, floats(rows * p.width, number));
    int a_lse = output(rows * 4, true, floats(rows, maybe_empty));
    BOTH(merge_attention, p.a = of(a), p.a_lse = of(a_lse));
}

static void try_stream_mix(const braid_kernels *reference, const braid_kernels *fast) {
    braid_stream_mix p = {.m = from_to(0, 7), .count = from_to(1, BRAID_MAX_STREAMS), .rounds = from_to(1, 20)};
    p.reads_only = flag();
    p.n = p.count * from_to(1, 60);
    int64_t mixes = p.reads_only ? p.count : (2 + p.count) * p.count;
    p.streams_stride = p.n + from_to(0, 5);
    p.streams = floats(extent(p.m, p.streams_stride, p.n), number);
    p.scale = floats(p.reads_only ? 1 : 3, number);
    p.base = floats(mixes, number);
    p.norm_eps = p.eps = 1e-6f;
    p.mixes_stride = mixes + from_to(0, 5);
    int64_t count = extent(p.m, p.mixes_stride, mixes);
    int x = output(count * 4, true, floats(count, number));
    BOTH(stream_mix, p.mixes = of(x));
}

static braid_streams streams(void) {
    braid_streams p = {.m = from_to(0, 7), .count = from_to(1, BRAID_MAX_STREAMS), .n = width()};
    int64_t mixes = (2 + p.count) * p.count;
    p.mixes_stride = mixes + from_to(0, 5);
    p.mixes = floats(extent(p.m, p.mixes_stride, mixes), number);
    p.streams_stride = p.count * p.n + from_to(0, 5);
    p.x_stride = p.n + from_to(0, 5);
    return p;
}

static void try_read_streams(const braid_kernels *reference, const braid_kernels *fast) {
    braid_streams p = streams();
    p.streams = (float *)floats(extent(p.m, p.streams_stride, p.count * p.n), number);
    int x = output(extent(p.m, p.x_stride, p.n) * 4, false, NULL);
    BOTH(read_streams, p.x = of(x));
}

static void try_write_streams(const braid_kernels *reference, const braid_kernels *fast) {
    braid_streams p = streams();
    p.x = (float *)floats(extent(p.m, p.x_stride, p.n), number);
    int64_t count = extent(p.m, p.streams_stride, p.count * p.n);
    int x = output(count * 4, true, floats(count, number));
    BOTH(write_streams, p.streams = of(x));
}

static void try_compress_entries(const braid_kernels *reference, const braid_kernels *fast) {
    braid_compress p = {.m = from_to(0, 5), .halves = from_to(1, 2), .n = from_to(1, 60)};
    p.slots = p.halves * from_to(1, 8);
    int64_t columns = 2 * p.halves * p.n;
    p.inputs_stride = columns + from_to(0, 5);
    p.inputs = floats(extent(p.m * p.slots, p.inputs_stride, columns), number);
    p.ape = floats(p.slots * p.n, number);
    p.out_stride = p.n + from_to(0, 5);
    int x = output(extent(p.m, p.out_stride, p.n) * 4, false, NULL);
    BOTH(compress_entries, p.out = of(x));
}

static void try_apply_sink(const braid_kernels *reference, const braid_kernels *fast) {
    braid_sink p = {.m = from_to(0, 5), .heads = from_to(1, 9), .width = width()};
    p.lse = floats(p.m * p.heads, maybe_empty);
    p.sinks = floats(p.heads, number);
    int64_t count = p.m * p.heads * p.width;
    int x = output(count * 4, true, floats(count, number));
    p.x_stride = p.heads * p.width;
    BOTH(apply_sink, p.x = of(x));
}

static void try_gate(const braid_kernels *reference, const braid_kernels *fast) {
    braid_gate p = {.m = from_to(0, 7), .groups = 1 << from_to(0, 3), .normalize = flag(), .scaling = 2.5f};
    int64_t size = from_to(1, from_to(0, 9) ? 9 : BRAID_MAX_EXPERTS / 8);
    p.experts = p.groups * size;
    p.top_groups = from_to(1, p.groups);
    p.k = from_to(1, p.top_groups * size);
    p.logits_stride = p.experts + from_to(0, 5);
    p.logits = floats(extent(p.m, p.logits_stride, p.experts), flag() ? number : wild);
    if (flag()) p.bias = floats(p.experts, number);
    int chosen = output(p.m * p.k * 4, false, NULL), weights = output(p.m * p.k * 4, true, NULL);
    BOTH(gate, p.chosen = of(chosen), p.weights = of(weights));
}

/// Experts' numbers, most of them right.
static int32_t *experts_chosen(int64_t count, int64_t bound) {
    int32_t *chosen = block(count * 4);
    for (int64_t i = 0; i < count; i++) chosen[i] = (int32_t)(from_to(0, 9) ? from_to(-1, bound) : (int64_t)draw());
    return chosen;
}

static void try_group_by_expert(const braid_kernels *reference, const braid_kernels *fast) {
    braid_group_by_expert p = {.m = from_to(0, 9), .k = from_to(1, 6), .first = from_to(0, 20)};
    p.experts = from_to(0, 30) ? from_to(1, 20) : BRAID_MAX_EXPERTS;
    p.chosen = experts_chosen(p.m * p.k, p.first + p.experts);
    p.weights = floats(p.m * p.k, number);
    int start = output((p.experts + 1) * 4, false, NULL), rows = output(p.m * p.k * 4, false, NULL);
    int weights = output(p.m * p.k * 4, true, NULL), slots = output(p.m * p.k * 4, false, NULL);
    BOTH(group_by_expert, p.start = of(start), p.rows = of(rows), p.slot_weights = of(weights), p.slots = of(slots));
}

static void try_dispatch(const braid_kernels *reference, const braid_kernels *fast) {
    braid_dispatch p = {.m = from_to(0, 9), .k = from_to(1, 6), .places = from_to(1, 8), .copies = from_to(1, 3)};
    int32_t *bounds = block((p.places + 1) * 4);
    bounds[0] = (int32_t)from_to(0, 3);
    for (int64_t i = 0; i < p.places; i++) bounds[i + 1] = bounds[i] + (int32_t)from_to(0, 4);
    p.bounds = bounds;
    p.chosen = experts_chosen(p.m * p.k, bounds[p.places]);
    int counts = output(p.places * 4, false, NULL), slots = output(p.m * p.places * 4, false, NULL);
    int rows = output(p.places * p.copies * p.m * 4, false, NULL);
    BOTH(dispatch, p.counts = of(counts), p.rows = of(rows), p.slots = of(slots));
}

/// Experts of one type, and which rows chose them.
typedef struct {
    int64_t m, k, count, first, hidden, width;
    braid_expert *experts;
    int32_t *start, *rows, *slots;
    float *weights;
} mixture;

static mixture mix(const braid_kernels *reference, int64_t first, int64_t count, int64_t used) {
    mixture x = {.m = from_to(0, from_to(0, 3) ? 9 : 40), .k = from_to(1, 5), .count = count, .first = first};
    x.hidden = from_to(1, 80);
    x.width = used;
    braid_dtype type = (braid_dtype)from_to(0, 3);
    x.experts = block(count * (int64_t)sizeof *x.experts);
    for (int64_t e = 0; e < count; e++) {
        x.experts[e].gate = weight_of(type, x.width, x.hidden);
        x.experts[e].up = weight_of(type, x.width, x.hidden);
        x.experts[e].down = weight_of(type, x.hidden, x.width);
    }
    int64_t pairs = x.m * x.k;
    int32_t *chosen = block(pairs * 4);
    // Different experts, of which some are others', ascending.
    for (int64_t r = 0; r < x.m; r++) ascending(chosen + r * x.k, x.k, first + count + 4 + x.k);
    x.start = block((count + 1) * 4);
    x.rows = block(pairs * 4);
    x.slots = block(pairs * 4);
    x.weights = block(pairs * 4);
    reference->group_by_expert(&(braid_group_by_expert){
        .m = x.m, .k = x.k, .chosen = chosen, .weights = floats(pairs, number), .first = first, .experts = count,
        .start = x.start, .rows = x.rows, .slot_weights = x.weights, .slots = x.slots});
    return x;
}

static void try_expert_hidden(const braid_kernels *reference, const braid_kernels *fast) {
    mixture x = mix(reference, from_to(0, 3), from_to(1, 4), from_to(1, 80));
    braid_expert_hidden p = {.experts = x.experts, .count = x.count, .k = x.hidden, .start = x.start, .rows = x.rows};
    p.profile = product_profile();
    p.n = from_to(1, x.width);
    p.first_column = from_to(0, x.width - p.n);
    p.x_stride = p.k + from_to(0, 5);
    p.x = floats(extent(x.m, p.x_stride, p.k), number);
    p.slot_weights = x.weights;
    p.out_stride = p.n + from_to(0, 5);
    int64_t fullest = 0;
    for (int64_t e = 0; e < x.count; e++) {
        fullest = x.start[e + 1] - x.start[e] > fullest ? x.start[e + 1] - x.start[e] : fullest;
    }
    for (int i = 0; i < 4; i++) p.gemv_max_rows[i] = flag() ? 0 : from_to(1, 20);
    p.scratch = aligned(BRAID_MATMUL_SCRATCH + fullest * p.n);
    int out = output(extent(x.start[x.count], p.out_stride, p.n) * 4, true, NULL);
    BOTH(expert_hidden, p.out = of(out));
}

static void try_expert_sums(const braid_kernels *reference, const braid_kernels *fast) {
    braid_expert_sums p = {.slices = 1 << from_to(0, 4), .groups = 1 << from_to(0, 2), .first_group = from_to(0, 2)};
    p.profile = product_profile();
    p.experts_per_group = from_to(1, 2);
    p.trees = 1 << from_to(0, p.groups == 4 ? 2 : p.groups / 2);
    int64_t least = p.first_group * p.experts_per_group, all = p.groups * p.experts_per_group;
    p.first_expert = flag() ? least : from_to(least, least + all - 1);
    p.count = flag() ? least + all - p.first_expert : from_to(1, least + all - p.first_expert);
    p.width = p.slices * from_to(1, 12);
    mixture x = mix(reference, p.first_expert, p.count, p.width + from_to(0, 9));
    p.experts = x.experts;
    p.first_column = from_to(0, x.width - p.width);
    p.n = from_to(1, x.hidden);
    p.first_output = from_to(0, x.hidden - p.n);
    p.m = x.m;
    p.k = x.k;
    p.start = x.start;
    p.slots = x.slots;
    p.hidden_stride = p.width + from_to(0, 5);
    p.hidden = floats(extent(x.start[x.count], p.hidden_stride, p.width), number);
    p.out_stride = p.n + from_to(0, 5);
    for (int i = 0; i < 4; i++) p.gemv_max_rows[i] = flag() ? 0 : from_to(1, 20);
    p.scratch = aligned(braid_expert_scratch(p.m, p.k, p.slices));
    int out = output(extent(p.trees * p.m, p.out_stride, p.n) * 4, true, NULL);
    BOTH(expert_sums, p.out = of(out));
}

static void try_combine_experts(const braid_kernels *reference, const braid_kernels *fast) {
    braid_combine p = {.m = from_to(0, 7), .n = width(), .parts = from_to(1, 9)};
    int64_t rows = from_to(1, 20);
    p.y_stride = p.n + from_to(0, 9);
    p.out_stride = p.n + from_to(0, 9);
    p.y = floats(extent(rows, p.y_stride, p.n), flag() ? number : wild);
    int32_t *slots = block(p.m * p.parts * 4);
    for (int64_t i = 0; i < p.m * p.parts; i++) slots[i] = (int32_t)from_to(-1, rows - 1);
    p.slots = slots;
    int out = output(extent(p.m, p.out_stride, p.n) * 4, true, NULL);
    BOTH(combine_experts, p.out = of(out));
}

static void try_store_rows(const braid_kernels *reference, const braid_kernels *fast) {
    braid_store_rows p = {.m = from_to(0, 7), .n = width(), .dtype = (braid_dtype)from_to(0, 2)};
    p.group = flag() ? 128 : from_to(1, 140);
    p.scale_type = (braid_scale_type)flag();
    if (from_to(0, 3) == 0) {
        p.dtype = BRAID_FP4;
        p.group = flag() ? 32 : flag() ? 16 * from_to(1, 9) : p.n + from_to(0, 3);
        p.scale_type = BRAID_SCALE_E8M0;
    }
    p.x_stride = p.n + from_to(0, 20);
    p.x = floats(extent(p.m, p.x_stride, p.n), wild);
    int32_t *slots = shuffled(p.m, 12);
    for (int64_t r = 0; r < p.m; r++) slots[r] = from_to(0, 3) ? slots[r] : -1;
    p.slots = slots;
    int out = output(12 * braid_entry_bytes(p.dtype, p.n, p.group, p.scale_type), p.dtype == BRAID_F32, NULL);
    BOTH(store_rows, p.lane = of(out));
}

/// Some entries are left out.
static void try_load_entries(const braid_kernels *reference, const braid_kernels *fast) {
    braid_load_entries p = {.m = from_to(0, 7), .bytes = from_to(1, 90)};
    int32_t *entries = shuffled(p.m, 12);
    for (int64_t r = 0; r < p.m; r++) entries[r] = from_to(0, 3) ? entries[r] : -1;
    p.entries = entries;
    p.stride = (p.bytes + 3) / 4 + from_to(0, 3);
    p.lane = stored(12 * p.bytes, BRAID_INT8);
    int rows = output(extent(p.m, p.stride, (p.bytes + 3) / 4) * 4, false, NULL);
    BOTH(load_entries, p.rows = of(rows));
}

static void try_hadamard(const braid_kernels *reference, const braid_kernels *fast) {
    braid_hadamard p = {.m = from_to(0, 5), .heads = from_to(1, 5), .width = 1 << from_to(0, 10)};
    p.x_stride = p.heads * p.width + from_to(0, 5);
    int64_t count = extent(p.m, p.x_stride, p.heads * p.width);
    int x = output(count * 4, true, floats(count, number));
    BOTH(hadamard, p.x = of(x));
}

static braid_quantize_groups groups(void) {
    braid_quantize_groups p = {.m = from_to(0, 7), .n = width(), .power_of_two = flag()};
    p.group = flag() ? 128 : from_to(1, 140);
    p.x_stride = p.n + from_to(0, 5);
    p.values_stride = p.n + from_to(0, 5);
    p.scales_stride = (p.n + p.group - 1) / p.group + from_to(0, 3);
    return p;
}

static int64_t scale_count(braid_quantize_groups p) {
    return extent(p.m, p.scales_stride, (p.n + p.group - 1) / p.group);
}

static void try_quantize_groups(const braid_kernels *reference, const braid_kernels *fast) {
    braid_quantize_groups p = groups();
    p.x = floats(extent(p.m, p.x_stride, p.n), wild);
    int values = output(extent(p.m, p.values_stride, p.n), false, NULL);
    int scales = output(scale_count(p) * 4, true, NULL);
    BOTH(quantize_groups, p.values = of(values), p.scales = of(scales));
}

static void try_dequantize_groups(const braid_kernels *reference, const braid_kernels *fast) {
    braid_quantize_groups p = groups();
    p.values = stored(extent(p.m, p.values_stride, p.n), BRAID_INT8);
    p.scales = floats(scale_count(p), number);
    int x = output(extent(p.m, p.x_stride, p.n) * 4, true, NULL);
    BOTH(dequantize_groups, p.x = of(x));
}

/// What only measures writes nothing.
static void try_peaks(const braid_kernels *reference, const braid_kernels *fast) {
    (void)reference;
    int64_t bytes = 256 * from_to(0, 9), turns = from_to(0, 3);
    fast->read_bytes(block(bytes), bytes);
    if (fast->multiply_adds(turns) < 0 || braid_bf16_dots(turns) < 0 || braid_int8_dots(turns) < 0) abort();
}

// ---------------------------------------------------------------------------------------------------------------- runs

/// How much of the time a trial gets: more where there are more paths and each call takes longer.
static const struct {
    const char *name;
    trial run;
    int weight;
} trials[] = {
    {"embedding", try_embedding, 1},
    {"matmul", try_matmul, 12},
    {"batched_matmul", try_batched_matmul, 4},
    {"sliced_matmul", try_sliced_matmul, 6},
    {"rms_norm", try_rms_norm, 1},
    {"layer_norm", try_layer_norm, 1},
    {"rope", try_rope, 1},
    {"add", try_add, 1},
    {"copy_rows", try_copy_rows, 1},
    {"scale", try_scale, 1},
    {"swiglu", try_swiglu, 1},
    {"softmax", try_softmax, 1},
    {"log_softmax", try_log_softmax, 1},
    {"index_scores", try_index_scores, 12},
    {"top_k", try_top_k, 1},
    {"pack_candidates", try_pack_candidates, 1},
    {"merge_candidates", try_merge_candidates, 1},
    {"sharded_keys", try_sharded_keys, 1},
    {"attention", try_attention, 12},
    {"merge_attention", try_merge_attention, 1},
    {"stream_mix", try_stream_mix, 1},
    {"read_streams", try_read_streams, 1},
    {"write_streams", try_write_streams, 1},
    {"compress_entries", try_compress_entries, 1},
    {"apply_sink", try_apply_sink, 1},
    {"gate", try_gate, 1},
    {"group_by_expert", try_group_by_expert, 1},
    {"dispatch", try_dispatch, 1},
    {"expert_hidden", try_expert_hidden, 6},
    {"expert_sums", try_expert_sums, 10},
    {"combine_experts", try_combine_experts, 1},
    {"store_rows", try_store_rows, 1},
    {"load_entries", try_load_entries, 1},
    {"hadamard", try_hadamard, 1},
    {"quantize_groups", try_quantize_groups, 1},
    {"dequantize_groups", try_dequantize_groups, 1},
    {"multiply_adds and read_bytes", try_peaks, 1},
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/// Shapes that are tried however slow the machine is; their results are in the digest.
#define LEAST_SHAPES 50

/// Tries shapes for some seconds; the number of the first whose results differ, or -1. `shapes` is how many there were.
static int64_t first_difference(
    trial run, const braid_kernels *fast, double seconds, uint64_t seed, int64_t *shapes, uint64_t *results
) {
    double end = now() + seconds;
    for (*shapes = 0; *shapes < LEAST_SHAPES || now() < end; ++*shapes) {
        state = seed + (uint64_t)*shapes * 0x51ED2701;
        magnitude = from_to(0, 7) ? 1 : 0x1p-63f;
        output_count = 0;
        run(braid_kernels_at(BRAID_REFERENCE), fast);
        bool equal = true;
        for (int i = 0; i < output_count; i++) {
            equal = equal && are_equal(&outputs[i]);
            if (*shapes < LEAST_SHAPES) *results = digest(&outputs[i], *results);
        }
        while (block_count > 0) free(blocks[--block_count]);
        if (!equal) return *shapes;
    }
    return -1;
}

/// The tables to try; the last two are those of AVX-512 where VNNI is missing, and where dot products of BF16 pairs are
/// fast.
#define TABLES (BRAID_AMX + 2)

static const braid_kernels *table(int i) {
    if (i < BRAID_AMX) return braid_kernels_at((braid_level)(i + 1));
    return i == BRAID_AMX ? braid_avx512_without_vnni() : braid_avx512_with_dots();
}

int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 20;
    uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 10) : (uint64_t)time(NULL);
    int passed = 0, failed = 0, levels = 0;
    for (int i = 0; i < TABLES; i++) levels += table(i) != NULL;
    int kernels = (int)(sizeof trials / sizeof *trials), weights = 0;
    for (int i = 0; i < kernels; i++) weights += trials[i].weight;
    printf("seed %llu\n", (unsigned long long)seed);
    for (int level = 0; level < TABLES; level++) {
        const braid_kernels *fast = table(level);
        uint64_t results = 0xCBF29CE484222325;
        for (int i = 0; fast && i < kernels; i++) {
            // Printed first, so that a report is known to be about this kernel.
            printf("%s, %s: ", fast->name, trials[i].name);
            fflush(stdout);
            double time = seconds * trials[i].weight / (levels * weights);
            int64_t shapes, where = first_difference(trials[i].run, fast, time, seed, &shapes, &results);
            if (where < 0) {
                passed++;
                printf("%lld shapes, equal to the reference\n", (long long)shapes);
            } else {
                failed++;
                printf("DIFFERENT from the reference in shape %lld\n", (long long)where);
            }
        }
        // The same for a seed, on all processors.
        if (fast) printf("%s, all: results %016llx\n", fast->name, (unsigned long long)results);
    }
    printf("%d passed, %d failed\n", passed, failed + (levels == 0));
    return failed || levels == 0;
}
