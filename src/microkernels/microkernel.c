/* The micro-kernels: the only code that knows vector registers.
 *
 * Compiled once for each element type and instruction set, with
 *   CONVEXT_REAL          float or double
 *   CONVEXT_LANES         elements in a vector register
 *   CONVEXT_REGISTERS     number of vector registers
 *   CONVEXT_TABLE         name of the table that this compilation defines
 *
 * Each micro-kernel is an always-inlined function whose tile sizes are compile-time constants, so
 * that its accumulators live in registers; the macros at the end instantiate it for every size. */
#include "depthwise.h"
#include "fft.h"
#include "microkernel.h"
#include "simd.h"
#include "squares.h"
#include "winograd.h"
#include "winograd_gradient.h"

#include <string.h>

/* Without a fused multiply-add a product needs a register of its own. */
#if defined(__FMA__) || defined(__aarch64__)
#define PRODUCT_REGISTERS 0
#else
#define PRODUCT_REGISTERS 1
#endif

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Elements from the pixels that a correlation loads to those it asks for. With fewer registers there
 * are fewer products for a load, and no time to ask. */
enum { AHEAD = 4096 / sizeof(real), ASKS_AHEAD = CONVEXT_REGISTERS >= 32 };

/* One broadcast weight, a row of pixel vectors and `kernels` rows of sums fit in the registers. */
#define CORRELATE_VECTORS(kernels) \
    MIN(8, (CONVEXT_REGISTERS - 1 - PRODUCT_REGISTERS) / ((kernels) + 1))

/* The compiler does not see where this leads, and so keeps no pointer for every step of a loop: there
 * are not registers enough. */
CONVEXT_INLINE const real *step_by(const real *pointer, ptrdiff_t stride)
{
    pointer += stride;
    __asm__("" : "+r"(pointer));
    return pointer;
}

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

/* All tiles for a block of taps, then for the next. */
CONVEXT_INLINE void correlate(const int kernels, ptrdiff_t num_taps, ptrdiff_t num_pixels,
                              const real *weights, const ptrdiff_t *weight_offset,
                              const ptrdiff_t row_stride, const real *pixels,
                              const ptrdiff_t *offset, real *sums, ptrdiff_t sums_stride,
                              int accumulate)
{
    const int vectors = CORRELATE_VECTORS(kernels);
    for (ptrdiff_t t = 0; t < num_taps; t += CONVEXT_BLOCK) {
        const ptrdiff_t taps = MIN(CONVEXT_BLOCK, num_taps - t);
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
CONVEXT_INLINE void dot_block(const int rows, const int taps, ptrdiff_t num_pixels,
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
    const ptrdiff_t block = (ptrdiff_t)CONVEXT_BLOCK * LANES;
    real block_sums[CONVEXT_REGISTERS];

    dot_block(rows, taps, MIN(block, num_pixels), row, row_stride, pixels, offset, sums);
    for (ptrdiff_t p = block; p < num_pixels; p += block) {
        dot_block(rows, taps, MIN(block, num_pixels - p), row + p, row_stride, pixels + p, offset,
                  block_sums);
        for (int i = 0; i < rows * taps; i++)
            sums[i] += block_sums[i];
    }
}

static double sum_of_lanes(vec value)
{
    real lane[LANES], sum;
    store(lane, value);
    sum_lanes(1, lane, &sum);
    return sum;
}

/* So many vectors of squares are added up in `real`, and their sums in double. */
enum { MAX_SQUARES = 64 };

/* A row is taken in whole vectors. The last one ends with the row; where it begins within the one
 * before, it is computed first, since the results replace the predictions. */
static double residual(ptrdiff_t num_rows, ptrdiff_t num_columns, void *predicted_,
                       ptrdiff_t pitch, const void *target_, ptrdiff_t target_pitch, double scale_)
{
    const vec scale = splat((real)scale_);
    const ptrdiff_t whole = num_columns / LANES * LANES;
    const ptrdiff_t last = num_columns - LANES;
    real beyond_whole[LANES];
    vec squares = {0};
    double sum = 0;

    for (ptrdiff_t i = 0; i < LANES; i++)
        beyond_whole[i] = last + i >= whole;
    const mask rest = load(beyond_whole) != 0;

    for (ptrdiff_t r = 0, vectors = 0; r < num_rows; r++) {
        real *predicted = (real *)predicted_ + r * pitch;
        const real *target = (const real *)target_ + r * target_pitch;
        if (last < 0) {
            for (ptrdiff_t c = 0; c < num_columns; c++) {
                const real difference = predicted[c] - target[c];
                sum += (double)difference * difference;
                predicted[c] = difference * scale[0];
            }
        } else {
            const vec end = load(predicted + last) - load(target + last);
            const vec rest_of_end = (vec)((mask)end & rest);
            for (ptrdiff_t c = 0, until; c < whole;) {
                until = MIN(whole, c + (MAX_SQUARES - vectors) * LANES);
                vectors += (until - c) / LANES;
                for (; c < until; c += LANES) {
                    const vec difference = load(predicted + c) - load(target + c);
                    squares += difference * difference;
                    store(predicted + c, difference * scale);
                }
                if (vectors == MAX_SQUARES) {
                    sum += sum_of_lanes(squares);
                    squares = (vec){0};
                    vectors = 0;
                }
            }
            squares += rest_of_end * rest_of_end;
            store(predicted + last, end * scale);
        }
        /* Volatile, or the compiler calls memset for one or two elements. */
        for (ptrdiff_t c = num_columns; c < pitch; c++)
            *(volatile real *)(predicted + c) = 0;
    }
    return sum + sum_of_lanes(squares);
}

/* The last vector of a row ends with the row. Where it begins within the one before, it is computed
 * first, from what was there. */
static void add_rows(ptrdiff_t num_rows, ptrdiff_t num_columns, const void *from_,
                     ptrdiff_t from_pitch, void *to_, ptrdiff_t to_pitch)
{
    const real *from = from_;
    real *to = to_;
    const ptrdiff_t last = num_columns - LANES;
    for (ptrdiff_t r = 0; r < num_rows; r++, from += from_pitch, to += to_pitch) {
        if (last < 0) {
            /* Volatile, or the compiler makes vectors that are longer than the row. */
            for (ptrdiff_t c = 0; c < num_columns; c++)
                *(volatile real *)(to + c) += from[c];
            continue;
        }
        const vec end = load(to + last) + load(from + last);
        for (ptrdiff_t c = 0; c < last; c += LANES)
            store(to + c, load(to + c) + load(from + c));
        store(to + last, end);
    }
}

#include "activation.h"

/* The next elements of each row are asked for early: the rows lie too far apart for the hardware to
 * see where they lead. */
enum { PREFETCH_ELEMENTS = 8 * LANES };

/* `count` elements, at most LANES, of LANES rows side by side. Reads whole vectors, and writes them
 * for each element. */
CONVEXT_INLINE void interleave_square(ptrdiff_t count, const real *const row[LANES], real *to,
                                      ptrdiff_t to_stride)
{
    vec square[LANES];
    UNROLL(16)
    for (int r = 0; r < LANES; r++) {
        square[r] = load(row[r]);
        __builtin_prefetch(row[r] + PREFETCH_ELEMENTS);
    }
    transpose(square);
    UNROLL(16)
    for (int i = 0; i < LANES; i++) {
        if (i == count)
            break;
        store(to + i * to_stride, square[i]);
    }
}

/* The same, without reading at or beyond `from_end`, or writing at or beyond `to_end`. */
static void interleave_edge(ptrdiff_t count, ptrdiff_t num_rows, const real *const row[LANES],
                            const real *from_end, real *to, ptrdiff_t to_stride,
                            const real *to_end)
{
    real copy[LANES * LANES], result[LANES * LANES];
    const real *inside[LANES];
    for (int r = 0; r < LANES; r++) {
        inside[r] = row[r];
        if (row[r] + LANES > from_end) {
            inside[r] = copy + r * LANES;
            for (ptrdiff_t i = 0; i < LANES; i++)
                copy[r * LANES + i] = i < count ? row[r][i] : 0;
        }
    }
    if (to + (count - 1) * to_stride + LANES <= to_end) {
        interleave_square(count, inside, to, to_stride);
        return;
    }
    interleave_square(LANES, inside, result, LANES);
    for (ptrdiff_t i = 0; i < count; i++)
        for (ptrdiff_t r = 0; r < num_rows; r++)
            to[i * to_stride + r] = result[i * LANES + r];
}

/* LANES rows, at least as many elements of each, in whole squares: the last one may overlap. Unless
 * `sums` is NULL, the elements' squares are added to it, as add_squares would do. */
static void interleave_whole(ptrdiff_t count, const real *from, ptrdiff_t row_stride, real *to,
                             ptrdiff_t to_stride, real *sums)
{
    vec last = {0};
    if (sums)
        last = load(sums + count - LANES);
    for (ptrdiff_t begin = 0; begin < count; begin += LANES) {
        const ptrdiff_t i = MIN(begin, count - LANES);
        const real *row = from + i;
        const real *column = to + i * to_stride;
        vec square[LANES];
        UNROLL(16)
        for (int r = 0; r < LANES; r++, row = step_by(row, row_stride)) {
            square[r] = load_once(row);
            __builtin_prefetch(row + PREFETCH_ELEMENTS);
        }
        if (sums) {
            vec sum = begin + LANES < count ? load(sums + i) : last;
            UNROLL(16)
            for (int r = 0; r < LANES; r++)
                sum += square[r] * square[r];
            store(sums + i, sum);
        }
        transpose(square);
        UNROLL(16)
        for (int r = 0; r < LANES; r++, column = step_by(column, to_stride))
            store((real *)column, square[r]);
    }
}

/* LANES rows or fewer, in squares. What a square writes beyond the last row is overwritten by the
 * next elements; the last ones must not write more than there is room for. */
static void interleave_strip(ptrdiff_t count, ptrdiff_t num_rows, const real *from,
                             ptrdiff_t row_stride, const real *from_end, real *to,
                             ptrdiff_t to_stride, const real *to_end)
{
    const real *row[LANES];
    if (num_rows == LANES && count >= LANES) {
        interleave_whole(count, from, row_stride, to, to_stride, NULL);
        return;
    }
    for (int r = 0; r < LANES; r++)
        row[r] = from + MIN(r, num_rows - 1) * row_stride;
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        const ptrdiff_t elements = MIN(LANES, count - i);
        if (row[LANES - 1] + LANES > from_end || to + (elements - 1) * to_stride + LANES > to_end)
            interleave_edge(elements, num_rows, row, from_end, to, to_stride, to_end);
        else
            interleave_square(elements, row, to, to_stride);
        to += LANES * to_stride;
        UNROLL(16)
        for (int r = 0; r < LANES; r++)
            row[r] += LANES;
    }
}

static void interleave_elements(ptrdiff_t count, ptrdiff_t num_rows, const real *from,
                                ptrdiff_t row_stride, ptrdiff_t step, real *to,
                                ptrdiff_t to_stride)
{
    for (ptrdiff_t i = 0; i < count; i++)
        for (ptrdiff_t r = 0; r < num_rows; r++)
            to[i * to_stride + r] = from[r * row_stride + i * step];
}

static void interleave(ptrdiff_t count, ptrdiff_t num_rows, const void *from_,
                       ptrdiff_t row_stride, ptrdiff_t step, void *to_, ptrdiff_t to_stride)
{
    const real *from = from_;
    const real *from_end = from + (num_rows - 1) * row_stride + count;
    real *to = to_;
    const real *to_end = to + (count - 1) * to_stride + num_rows;
    if (num_rows == 1 && step == 1 && to_stride == 1) {
        memcpy(to, from, count * sizeof(real));
        return;
    }
    if (row_stride == 1) {
        for (ptrdiff_t i = 0; i < count; i++)
            memcpy(to + i * to_stride, from + i * step, num_rows * sizeof(real));
        return;
    }
    /* A few rows, the last ones perhaps, are not worth a square. */
    const ptrdiff_t few = LANES / 4;
    ptrdiff_t r = 0;
    if (step == 1 && row_stride > 0 && count >= few)
        for (; num_rows - r >= few && (r == 0 || num_rows - r > few); r += LANES) {
            /* The last rows are taken together with some before, so as to write nothing beyond. */
            const ptrdiff_t first = MAX(0, MIN(r, num_rows - LANES));
            interleave_strip(count, MIN(LANES, num_rows), from + first * row_stride, row_stride,
                             from_end, to + first, to_stride, to_end);
        }
    if (r < num_rows)
        interleave_elements(count, num_rows - r, from + r * row_stride, row_stride, step, to + r,
                            to_stride);
}

static void interleave_and_square(ptrdiff_t count, ptrdiff_t num_rows, const void *from_,
                                  ptrdiff_t row_stride, ptrdiff_t step, void *to_,
                                  ptrdiff_t to_stride, void *sums)
{
    const real *from = from_;
    real *to = to_;
    if (step != 1 || row_stride <= 1 || count < LANES || num_rows % LANES) {
        interleave(count, num_rows, from, row_stride, step, to, to_stride);
        /* While the elements are in the L1 cache. */
        add_squares(count, num_rows, from, row_stride, step, sums);
        return;
    }
    for (ptrdiff_t r = 0; r < num_rows; r += LANES)
        interleave_whole(count, from + r * row_stride, row_stride, to + r, to_stride, sums);
}

/* The last vector ends with the last element that is wanted, and nothing beyond it is read. */
CONVEXT_INLINE void copy_row(ptrdiff_t count, const real *from, real *to)
{
    if (count < LANES) {
        copy_part(count, from, to);
        return;
    }
    for (ptrdiff_t i = 0; i + LANES < count; i += LANES)
        store(to + i, load(from + i));
    store(to + count - LANES, load(from + count - LANES));
}

CONVEXT_INLINE void copy_every_other(ptrdiff_t count, const real *from, real *to)
{
    ptrdiff_t i = 0;
    for (; i + LANES < count; i += LANES) {
        __builtin_prefetch(from + 2 * i + 16 * LANES);
        __builtin_prefetch(from + 2 * i + 17 * LANES);
        store(to + i, EVERY_OTHER(load(from + 2 * i), load(from + 2 * i + LANES)));
    }
    i = count - LANES;
    store(to + i, EVERY_OTHER_ODD(load(from + 2 * i), load(from + 2 * i + LANES - 1)));
}

static void pack(ptrdiff_t num_rows, ptrdiff_t count, const void *from_, ptrdiff_t row_stride,
                 ptrdiff_t step, void *to_, ptrdiff_t to_stride)
{
    const real *from = from_;
    real *to = to_;
    for (ptrdiff_t r = 0; r < num_rows; r++, from += row_stride, to += to_stride) {
        if (step == 1)
            copy_row(count, from, to);
        else if (step == 2 && count >= LANES)
            copy_every_other(count, from, to);
        else
            for (ptrdiff_t i = 0; i < count; i++)
                to[i] = from[i * step];
    }
}

/* Short pieces are copied as short vectors: those that cross cache lines take their time. */
static void unfold(ptrdiff_t num_pixels, ptrdiff_t num_pieces, const void *pixels_,
                   const ptrdiff_t *offset, void *to_, const ptrdiff_t *start, ptrdiff_t width)
{
    const real *pixels = pixels_;
    real *to = to_;
    for (ptrdiff_t p = 0; p < num_pixels; p++, pixels++, to += width)
        for (ptrdiff_t i = 0; i < num_pieces; i++) {
            const ptrdiff_t length = start[i + 1] - start[i];
            if (length <= LANES / 4)
                memcpy(to + start[i], pixels + offset[i], LANES / 4 * sizeof(real));
            else if (length <= LANES / 2)
                memcpy(to + start[i], pixels + offset[i], LANES / 2 * sizeof(real));
            else
                store(to + start[i], load(pixels + offset[i]));
        }
}

/* The instances, and the table that lists them. Sizes that do not fit the registers stay NULL. */
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

const convext_microkernels CONVEXT_TABLE = {
    .lanes = LANES,
    .max_kernels = MAX_KERNELS,
    .correlate_vectors = {FOR_KERNELS(VECTORS_ENTRY)},
    .max_rows = MAX_ROWS,
    .max_dot_taps = MAX_DOT_TAPS,
    .max_slide_rows = CONVEXT_MAX_SLIDE_ROWS,
    .winograd_width = WIDTH,
    .activations = activation_names,
    .correlate = {FOR_KERNELS(CORRELATE_ENTRY)},
    .slide = {FOR_SLIDE_ROWS(SLIDE_ENTRY)},
    .dot = {FOR_DOTS(DOT_ENTRY)},
#define MICROKERNEL(result, name, parameters) .name = name,
#define MICROKERNELS(result, name, sizes, parameters) /* above, an entry for each size */
#include "contracts.h"
};
