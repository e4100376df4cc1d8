/* Sums of products, tile by tile: `correlate`, `slide` and `dot`, with an instance for each size of a
 * tile. They are always-inlined functions whose sizes are compile-time constants, so that their sums
 * live in registers. */
#ifndef CONVEXT_PRODUCTS_H
#define CONVEXT_PRODUCTS_H

#include "microkernel.h"
#include "simd.h"

/* Without a fused multiply-add a product needs a register of its own. */
#if defined(__FMA__) || defined(__aarch64__)
#define PRODUCT_REGISTERS 0
#else
#define PRODUCT_REGISTERS 1
#endif

/* Elements from the pixels that a correlation loads to those it asks for. With fewer registers there
 * are fewer products for a load, and no time to ask. */
enum { AHEAD = 4096 / sizeof(real), ASKS_AHEAD = CONVEXT_REGISTERS >= 32 };

/* One broadcast weight, a row of pixel vectors and `kernels` rows of sums fit in the registers. */
#define CORRELATE_VECTORS(kernels) \
    MIN(8, (CONVEXT_REGISTERS - 1 - PRODUCT_REGISTERS) / ((kernels) + 1))

/* Weights that lie in rows: more rows than these have no address of their own, or there would not be
 * registers enough for them. */
enum { ROWS_WITH_ADDRESS = 7 };

/* In registers: kernels x vectors sums, one row of pixels, one weight. From L1: the weights of
 * these kernels, which lie side by side at their offsets or else, where `row_stride` is not 0, in
 * rows. Streams: the pixels, which may come from far away, where they are the packed weights of many
 * kernels: few of them are loaded for many products, so that there is time to ask for those ahead. */
CONVEXT_INLINE void correlate_tile(const int kernels, const int vectors, ptrdiff_t num_taps,
                                   const real *weights, const ptrdiff_t *weight_offset,
                                   const ptrdiff_t row_stride, const real *pixels,
                                   const ptrdiff_t *offset, real *sums, ptrdiff_t sums_stride,
                                   int accumulate)
{
    const real *lower_rows = weights + ROWS_WITH_ADDRESS * row_stride;
    vec sum[CONVEXT_MAX_KERNELS][8];

    UNROLL(16)
    for (int k = 0; k < kernels; k++)
        UNROLL(8)
        for (int v = 0; v < vectors; v++)
            sum[k][v] = (vec){0};

    for (ptrdiff_t t = 0; t < num_taps; t++) {
        const real *from = pixels + offset[t];
        vec pixel[8];
        UNROLL(8)
        for (int v = 0; v < vectors; v++)
            pixel[v] = load(from + v * LANES);
        if (ASKS_AHEAD && row_stride == 0 && vectors <= 3 && kernels >= 4)
            UNROLL(3)
            for (int v = 0; v < vectors; v++)
                __builtin_prefetch(from + v * LANES + AHEAD);
        UNROLL(16)
        for (int k = 0; k < kernels; k++) {
            const vec weight = splat(
                row_stride == 0 ? weights[weight_offset[t] + k]
                : k < ROWS_WITH_ADDRESS ? weights[k * row_stride]
                : lower_rows[(k - ROWS_WITH_ADDRESS) * row_stride]);
            UNROLL(8)
            for (int v = 0; v < vectors; v++)
                sum[k][v] += weight * pixel[v];
        }
        if (row_stride != 0) {
            weights = step_by(weights, 1);
            lower_rows = step_by(lower_rows, 1);
        }
    }

    UNROLL(16)
    for (int k = 0; k < kernels; k++)
        UNROLL(8)
        for (int v = 0; v < vectors; v++) {
            real *to = sums + k * sums_stride + v * LANES;
            store(to, accumulate ? load(to) + sum[k][v] : sum[k][v]);
        }
}

/* All tiles for a chain of taps, then for the next. */
CONVEXT_INLINE void correlate(const int kernels, ptrdiff_t num_taps, ptrdiff_t num_pixels,
                              const real *weights, const ptrdiff_t *weight_offset,
                              const ptrdiff_t row_stride, const real *pixels,
                              const ptrdiff_t *offset, real *sums, ptrdiff_t sums_stride,
                              int accumulate)
{
    const int vectors = CORRELATE_VECTORS(kernels);
    for (ptrdiff_t t = 0; t < num_taps; t += CONVEXT_CHAIN) {
        const ptrdiff_t taps = MIN(CONVEXT_CHAIN, num_taps - t);
        ptrdiff_t p = 0;
        for (; p + vectors * LANES <= num_pixels; p += vectors * LANES)
            correlate_tile(kernels, vectors, taps, weights, weight_offset, row_stride, pixels + p,
                           offset, sums + p, sums_stride, accumulate);
        /* A chain of sums alone would wait for each multiply-add. */
        if (kernels <= 2)
            for (; p + 3 * LANES <= num_pixels; p += 3 * LANES)
                correlate_tile(kernels, 3, taps, weights, weight_offset, row_stride, pixels + p,
                               offset, sums + p, sums_stride, accumulate);
        for (; p < num_pixels; p += LANES)
            correlate_tile(kernels, 1, taps, weights, weight_offset, row_stride, pixels + p,
                           offset, sums + p, sums_stride, accumulate);
        accumulate = 1;
        offset += taps;
        if (row_stride == 0)
            weight_offset += taps;
        else
            weights += taps;
    }
}

/* One row of pixels under the windows of the output rows first to last - 1. */
CONVEXT_INLINE void slide_row(const int first, const int last, const int vectors,
                              ptrdiff_t num_columns, const real *weights, const real *pixels,
                              const ptrdiff_t *offset, vec sum[CONVEXT_MAX_SLIDE_ROWS][8])
{
    for (ptrdiff_t j = 0; j < num_columns; j++) {
        vec pixel[8];
        UNROLL(8)
        for (int v = 0; v < vectors; v++)
            pixel[v] = load(pixels + offset[j] + v * LANES);
        UNROLL(4)
        for (int r = first; r < last; r++) {
            /* The further down the output row, the further up in its window. */
            const vec weight = splat(weights[j - r * num_columns]);
            UNROLL(8)
            for (int v = 0; v < vectors; v++)
                sum[r][v] += weight * pixel[v];
        }
    }
}

/* In registers: rows x vectors sums, one row of pixel vectors, one weight. The first and the last
 * rows of pixels lie under the windows of some output rows only. */
CONVEXT_INLINE void slide_tile(const int rows, const int vectors, ptrdiff_t num_rows,
                               ptrdiff_t num_columns, const real *weights, const real *pixels,
                               ptrdiff_t pitch, const ptrdiff_t *offset, real *sums,
                               ptrdiff_t sums_stride, int accumulate)
{
    vec sum[CONVEXT_MAX_SLIDE_ROWS][8];
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(8)
        for (int v = 0; v < vectors; v++)
            sum[r][v] = (vec){0};

    UNROLL(4)
    for (int i = 0; i < rows - 1; i++)
        slide_row(0, i + 1, vectors, num_columns, weights + i * num_columns, pixels + i * pitch,
                  offset, sum);
    for (ptrdiff_t i = rows - 1; i < num_rows; i++)
        slide_row(0, rows, vectors, num_columns, weights + i * num_columns, pixels + i * pitch,
                  offset, sum);
    UNROLL(4)
    for (int r = 1; r < rows; r++) {
        const ptrdiff_t i = num_rows - 1 + r;
        slide_row(r, rows, vectors, num_columns, weights + i * num_columns, pixels + i * pitch,
                  offset, sum);
    }

    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(8)
        for (int v = 0; v < vectors; v++) {
            real *to = sums + r * sums_stride + v * LANES;
            store(to, accumulate ? load(to) + sum[r][v] : sum[r][v]);
        }
}

CONVEXT_INLINE void slide(const int rows, ptrdiff_t num_rows, ptrdiff_t num_columns,
                          ptrdiff_t num_pixels, const real *weights, const real *pixels,
                          ptrdiff_t pitch, const ptrdiff_t *offset, real *sums,
                          ptrdiff_t sums_stride, int accumulate)
{
    const int vectors = CORRELATE_VECTORS(rows);
    ptrdiff_t p = 0;
    for (; p + vectors * LANES <= num_pixels; p += vectors * LANES)
        slide_tile(rows, vectors, num_rows, num_columns, weights, pixels + p, pitch, offset,
                   sums + p, sums_stride, accumulate);
    for (; p + 2 * LANES <= num_pixels; p += 2 * LANES)
        slide_tile(rows, 2, num_rows, num_columns, weights, pixels + p, pitch, offset, sums + p,
                   sums_stride, accumulate);
    /* The last vectors end with the last pixel. */
    for (; p < num_pixels; p += LANES) {
        const ptrdiff_t begin = MIN(p, num_pixels - LANES);
        slide_tile(rows, 1, num_rows, num_columns, weights, pixels + begin, pitch, offset,
                   sums + begin, sums_stride, accumulate);
    }
}

/* In registers: rows x taps sums, the rows' vectors, one vector of pixels. Streams: the rows from
 * L1, the pixels. */
CONVEXT_INLINE void dot_chain(const int rows, const int taps, ptrdiff_t num_pixels,
                              const real *row, ptrdiff_t row_stride, const real *pixels,
                              const ptrdiff_t *offset, real *sums)
{
    vec sum[CONVEXT_MAX_ROWS][CONVEXT_MAX_DOT_TAPS];
    const real *tap[CONVEXT_MAX_DOT_TAPS];
    real lane[CONVEXT_REGISTERS * LANES];

    UNROLL(24)
    for (int t = 0; t < taps; t++) {
        tap[t] = pixels + offset[t];
        UNROLL(4)
        for (int r = 0; r < rows; r++)
            sum[r][t] = (vec){0};
    }

    for (ptrdiff_t p = 0; p < num_pixels; p += LANES) {
        vec gradient[CONVEXT_MAX_ROWS];
        UNROLL(4)
        for (int r = 0; r < rows; r++)
            gradient[r] = load(row + r * row_stride + p);
        UNROLL(24)
        for (int t = 0; t < taps; t++) {
            const vec pixel = load_once(tap[t] + p);
            UNROLL(4)
            for (int r = 0; r < rows; r++)
                sum[r][t] += gradient[r] * pixel;
        }
    }

    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(24)
        for (int t = 0; t < taps; t++)
            store(lane + (r * taps + t) * LANES, sum[r][t]);
    sum_lanes(rows * taps, lane, sums);
}

CONVEXT_INLINE void dot(const int rows, const int taps, ptrdiff_t num_pixels, const real *row,
                        ptrdiff_t row_stride, const real *pixels, const ptrdiff_t *offset,
                        real *sums)
{
    const ptrdiff_t chain = (ptrdiff_t)CONVEXT_CHAIN * LANES;
    real chain_sums[CONVEXT_REGISTERS];

    dot_chain(rows, taps, MIN(chain, num_pixels), row, row_stride, pixels, offset, sums);
    for (ptrdiff_t p = chain; p < num_pixels; p += chain) {
        dot_chain(rows, taps, MIN(chain, num_pixels - p), row + p, row_stride, pixels + p, offset,
                  chain_sums);
        for (int i = 0; i < rows * taps; i++)
            sums[i] += chain_sums[i];
    }
}

/* The instances, and how the table lists them. Sizes that do not fit the registers stay NULL. */
#define CORRELATE_INSTANCE(kernels) \
    static void correlate_##kernels(ptrdiff_t num_taps, ptrdiff_t num_pixels, \
                                    const void *weights, const ptrdiff_t *weight_offset, \
                                    const void *pixels, const ptrdiff_t *offset, void *sums, \
                                    ptrdiff_t sums_stride, int accumulate) \
    { \
        correlate(kernels, num_taps, num_pixels, weights, weight_offset, 0, pixels, offset, sums, \
                  sums_stride, accumulate); \
    }

#define SLIDE_INSTANCE(rows) \
    static void slide_##rows(ptrdiff_t num_rows, ptrdiff_t num_columns, ptrdiff_t num_pixels, \
                             const void *weights, const void *pixels, ptrdiff_t pitch, \
                             const ptrdiff_t *offset, void *sums, ptrdiff_t sums_stride, \
                             int accumulate) \
    { \
        slide(rows, num_rows, num_columns, num_pixels, weights, pixels, pitch, offset, sums, \
              sums_stride, accumulate); \
    }

#define DOT_INSTANCE(rows, taps) \
    static void dot_##rows##_##taps(ptrdiff_t num_pixels, const void *row, ptrdiff_t row_stride, \
                                    const void *pixels, const ptrdiff_t *offset, void *sums) \
    { \
        dot(rows, taps, num_pixels, row, row_stride, pixels, offset, sums); \
    }

#define FOR_SLIDE_ROWS(X) X(1) X(2) X(3) X(4)

#define FOR_1_TO_6(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define FOR_7_TO_14(X) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)

#define FOR_TAPS_1_TO_2(X, r) X(r, 1) X(r, 2)
#define FOR_TAPS_1_TO_3(X, r) FOR_TAPS_1_TO_2(X, r) X(r, 3)
#define FOR_TAPS_1_TO_4(X, r) FOR_TAPS_1_TO_3(X, r) X(r, 4)
#define FOR_TAPS_1_TO_6(X, r) FOR_TAPS_1_TO_4(X, r) X(r, 5) X(r, 6)
#define FOR_TAPS_1_TO_8(X, r) FOR_TAPS_1_TO_6(X, r) X(r, 7) X(r, 8)
#define FOR_TAPS_1_TO_12(X, r) FOR_TAPS_1_TO_8(X, r) X(r, 9) X(r, 10) X(r, 11) X(r, 12)
#define FOR_TAPS_1_TO_24(X, r) \
    FOR_TAPS_1_TO_12(X, r) X(r, 13) X(r, 14) X(r, 15) X(r, 16) X(r, 17) X(r, 18) X(r, 19) \
    X(r, 20) X(r, 21) X(r, 22) X(r, 23) X(r, 24)

/* A dot's sums, rows x taps, leave registers for the vectors of the rows and for one of pixels. */
#if CONVEXT_REGISTERS >= 32
enum { MAX_KERNELS = 14, MAX_ROWS = 4 };
#define MAX_DOT_TAPS {0, 24, 12, 8, 6}
#define FOR_KERNELS(X) FOR_1_TO_6(X) FOR_7_TO_14(X)
#define FOR_DOTS(X) \
    FOR_TAPS_1_TO_24(X, 1) FOR_TAPS_1_TO_12(X, 2) FOR_TAPS_1_TO_8(X, 3) FOR_TAPS_1_TO_6(X, 4)
#else
enum { MAX_KERNELS = 6, MAX_ROWS = 3 };
#define MAX_DOT_TAPS {0, 12, 6, 3}
#define FOR_KERNELS(X) FOR_1_TO_6(X)
#define FOR_DOTS(X) FOR_TAPS_1_TO_12(X, 1) FOR_TAPS_1_TO_6(X, 2) FOR_TAPS_1_TO_3(X, 3)
#endif

static void correlate_rows(ptrdiff_t num_taps, ptrdiff_t num_pixels, const void *rows,
                           ptrdiff_t row_stride, const void *pixels, const ptrdiff_t *offset,
                           void *sums, ptrdiff_t sums_stride, int accumulate)
{
    correlate(MAX_KERNELS, num_taps, num_pixels, rows, NULL, row_stride, pixels, offset, sums,
              sums_stride, accumulate);
}

FOR_KERNELS(CORRELATE_INSTANCE)
FOR_SLIDE_ROWS(SLIDE_INSTANCE)
FOR_DOTS(DOT_INSTANCE)

#define CORRELATE_ENTRY(kernels) [kernels] = correlate_##kernels,
#define VECTORS_ENTRY(kernels) [kernels] = CORRELATE_VECTORS(kernels),
#define SLIDE_ENTRY(rows) [rows] = slide_##rows,
#define DOT_ENTRY(rows, taps) [rows][taps] = dot_##rows##_##taps,

#endif
