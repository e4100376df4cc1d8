/* Pixels and weights laid out anew: rows side by side, packed, and unfolded. */
#ifndef CONVEXT_LAYOUT_H
#define CONVEXT_LAYOUT_H

#include "simd.h"
#include "squares.h"

#include <string.h>

/* The next elements of each row are asked for early: the rows lie too far apart for the hardware to
 * see where they lead. */
enum { PREFETCH_ELEMENTS = 8 * LANES };

/* `count` elements, at most LANES, of LANES rows side by side. Reads whole vectors, and writes them
 * for each element. Unless `sum` is NULL, their squares are added to it. */
CONVEXT_INLINE void interleave_square(ptrdiff_t count, const real *const row[LANES], real *to,
                                      ptrdiff_t to_stride, vec *sum)
{
    vec square[LANES];
    UNROLL(16)
    for (int r = 0; r < LANES; r++) {
        square[r] = load_once(row[r]);
        __builtin_prefetch(row[r] + PREFETCH_ELEMENTS);
    }
    UNROLL(16)
    for (int r = 0; sum && r < LANES; r++)
        *sum += square[r] * square[r];
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
                            const real *to_end, vec *sum)
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
        interleave_square(count, inside, to, to_stride, sum);
        return;
    }
    interleave_square(LANES, inside, result, LANES, sum);
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
                             ptrdiff_t to_stride, const real *to_end, vec *sum)
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
            interleave_edge(elements, num_rows, row, from_end, to, to_stride, to_end, sum);
        else
            interleave_square(elements, row, to, to_stride, sum);
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
                             from_end, to + first, to_stride, to_end, NULL);
        }
    if (r < num_rows)
        interleave_elements(count, num_rows - r, from + r * row_stride, row_stride, step, to + r,
                            to_stride);
}

static void interleave_and_square(ptrdiff_t count, ptrdiff_t num_rows, const void *from_,
                                  ptrdiff_t row_stride, ptrdiff_t step, void *to_,
                                  ptrdiff_t to_stride, void *sums_)
{
    real *sums = sums_;
    const real *from = from_;
    const real *from_end = from + (num_rows - 1) * row_stride + count;
    real *to = to_;
    const real *to_end = to + (count - 1) * to_stride + num_rows;
    const ptrdiff_t whole = step == 1 && row_stride > 1 ? num_rows / LANES * LANES : 0;
    if (count >= LANES)
        /* A strip of rows after the other: more rows than that, of a power of two of elements each,
         * would take one another's place in the L1 cache. */
        for (ptrdiff_t r = 0; r < whole; r += LANES)
            interleave_whole(count, from + r * row_stride, row_stride, to + r, to_stride, sums);
    else if (whole > 0) {
        vec sum = load_elements(count, sums, 1, sums);
        for (ptrdiff_t r = 0; r < whole; r += LANES)
            interleave_strip(count, LANES, from + r * row_stride, row_stride, from_end, to + r,
                             to_stride, to_end, &sum);
        copy_part(count, (const real *)&sum, sums);
    }
    if (whole < num_rows) {
        from += whole * row_stride;
        interleave(count, num_rows - whole, from, row_stride, step, to + whole, to_stride);
        /* While the elements are in the L1 cache. */
        add_squares(1, count, num_rows - whole, from, 0, row_stride, step, sums, 0);
    }
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

#endif
