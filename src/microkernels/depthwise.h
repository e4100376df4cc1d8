/* Channels that each meet a kernel of their own: their convolution, and its gradient with respect to
 * the kernel. There is nothing to share between channels, so a row of pixels serves all the rows of
 * windows that it lies under. */
#ifndef CONVEXT_DEPTHWISE_H
#define CONVEXT_DEPTHWISE_H

#include "simd.h"

#include <string.h>

/* So many rows of results make enough chains of sums that none waits for its multiply-adds. */
enum { BAND = 4, SMALL = 3 };

typedef struct {
    ptrdiff_t rows, columns;
    const real *pixels;
    ptrdiff_t row_step;             /* from the windows of a row of results to those of the next */
    ptrdiff_t tap_step;             /* from a row of taps to the next */
    const ptrdiff_t *offset;        /* of the columns of taps */
} windows;

CONVEXT_INLINE windows describe_windows(ptrdiff_t rows, ptrdiff_t columns, const void *pixels,
                                        ptrdiff_t row_step, ptrdiff_t tap_step,
                                        const ptrdiff_t *offset)
{
    return (windows){rows, columns, pixels, row_step, tap_step, offset};
}

/* Whether windows of 3x3 taps lie side by side. */
CONVEXT_INLINE int are_small(const windows *w)
{
    return w->rows == SMALL && w->columns == SMALL && w->row_step == w->tap_step
           && w->offset[1] == w->offset[0] + 1 && w->offset[2] == w->offset[0] + 2;
}

/* Sums under any windows, for a vector of results in each of `rows` rows. */
CONVEXT_INLINE void sum_windows(const int rows, const windows *w, const real *weights,
                                const real *pixels, vec sum[BAND])
{
    for (ptrdiff_t i = 0; i < w->rows; i++, pixels += w->tap_step, weights += w->columns)
        for (ptrdiff_t j = 0; j < w->columns; j++) {
            const vec weight = splat(weights[j]);
            UNROLL(4)
            for (int r = 0; r < rows; r++)
                sum[r] += weight * load(pixels + r * w->row_step + w->offset[j]);
        }
}

/* The same under small ones: each row of pixels meets up to three rows of windows. */
CONVEXT_INLINE void sum_small_windows(const int rows, const windows *w,
                                      const vec weight[SMALL * SMALL], const real *pixels,
                                      vec sum[BAND])
{
    pixels += w->offset[0];
    UNROLL(6)
    for (int i = 0; i < SMALL + rows - 1; i++, pixels += w->tap_step)
        UNROLL(3)
        for (int j = 0; j < SMALL; j++) {
            const vec pixel = load_once(pixels + j);
            UNROLL(4)
            for (int r = 0; r < rows; r++)
                if (r <= i && i - r < SMALL)
                    sum[r] += weight[(i - r) * SMALL + j] * pixel;
        }
}

/* The first `count` elements, fewer than LANES. */
CONVEXT_INLINE void store_part(real *to, vec value, ptrdiff_t count)
{
    real lane[LANES];
    store(lane, value);
    copy_part(count, lane, to);
}

/* In registers: a vector of results in each of `rows` rows and, of small windows, their weights.
 * The last vector ends with the last column. */
CONVEXT_INLINE void convolve_band(const int small, const int rows, const windows *w,
                                  const real *weights, real bias, const real *pixels,
                                  ptrdiff_t num_columns, real *out, ptrdiff_t out_stride)
{
    vec weight[SMALL * SMALL];
    if (small)
        UNROLL(9)
        for (int i = 0; i < SMALL * SMALL; i++)
            weight[i] = splat(weights[i]);
    for (ptrdiff_t begin = 0; begin < num_columns; begin += LANES) {
        const ptrdiff_t x = begin + LANES <= num_columns || num_columns < LANES
                                ? begin : num_columns - LANES;
        vec sum[BAND];
        UNROLL(4)
        for (int r = 0; r < rows; r++)
            sum[r] = splat(bias);
        if (small)
            sum_small_windows(rows, w, weight, pixels + x, sum);
        else
            sum_windows(rows, w, weights, pixels + x, sum);
        UNROLL(4)
        for (int r = 0; r < rows; r++)
            if (num_columns >= LANES)
                store(out + r * out_stride + x, sum[r]);
            else
                store_part(out + r * out_stride, sum[r], num_columns);
    }
}

static void depthwise(ptrdiff_t taps_h, ptrdiff_t taps_w, const void *weights, double bias,
                      const void *pixels, ptrdiff_t row_step, ptrdiff_t tap_step,
                      const ptrdiff_t *offset, ptrdiff_t num_rows, ptrdiff_t num_columns,
                      void *out, ptrdiff_t out_stride)
{
    const windows w = describe_windows(taps_h, taps_w, pixels, row_step, tap_step, offset);
    const int small = are_small(&w);
    const ptrdiff_t band = num_rows < BAND ? 1 : BAND;
    for (ptrdiff_t begin = 0; begin < num_rows; begin += band) {
        /* The last band ends with the last row. */
        const ptrdiff_t y = begin + band <= num_rows ? begin : num_rows - band;
        const real *row = w.pixels + y * row_step;
        real *to = (real *)out + y * out_stride;
        if (band == 1)
            convolve_band(0, 1, &w, weights, bias, row, num_columns, to, out_stride);
        else if (small)
            convolve_band(1, BAND, &w, weights, bias, row, num_columns, to, out_stride);
        else
            convolve_band(0, BAND, &w, weights, bias, row, num_columns, to, out_stride);
    }
}

/* All bits of the lanes before `count`. */
CONVEXT_INLINE mask lanes_before(ptrdiff_t count)
{
    real inside[LANES];
    for (ptrdiff_t i = 0; i < LANES; i++)
        inside[i] = i < count;
    return load(inside) != 0;
}

/* Pixels, of which those beyond the last column must not count, not even if they are NaN. */
CONVEXT_INLINE vec load_inside(const int whole, const real *from, mask inside)
{
    const vec pixel = load_once(from);
    return whole ? pixel : (vec)((mask)pixel & inside);
}

/* In registers: the sums of nine taps, and a vector of gradients of each of `rows` rows. */
CONVEXT_INLINE void add_small_gradients(const int rows, const int whole, const windows *w,
                                        const real *gradient, ptrdiff_t gradient_stride,
                                        const real *pixels, mask inside, vec sum[SMALL * SMALL])
{
    vec grad[BAND];
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        grad[r] = load(gradient + r * gradient_stride);
    pixels += w->offset[0];
    UNROLL(6)
    for (int i = 0; i < SMALL + rows - 1; i++, pixels += w->tap_step)
        UNROLL(3)
        for (int j = 0; j < SMALL; j++) {
            const vec pixel = load_inside(whole, pixels + j, inside);
            UNROLL(4)
            for (int r = 0; r < rows; r++)
                if (r <= i && i - r < SMALL)
                    sum[(i - r) * SMALL + j] += grad[r] * pixel;
        }
}

CONVEXT_INLINE void add_small_rows(const int rows, const windows *w, ptrdiff_t y,
                                   const real *gradient, ptrdiff_t gradient_stride,
                                   ptrdiff_t num_columns, mask inside, vec sum[SMALL * SMALL])
{
    const real *pixels = w->pixels + y * w->row_step;
    ptrdiff_t x = 0;
    gradient += y * gradient_stride;
    for (; x + LANES <= num_columns; x += LANES)
        add_small_gradients(rows, 1, w, gradient + x, gradient_stride, pixels + x, inside, sum);
    if (x < num_columns)
        add_small_gradients(rows, 0, w, gradient + x, gradient_stride, pixels + x, inside, sum);
}

static void sum_small_gradients(const windows *w, const real *gradient,
                                ptrdiff_t gradient_stride, ptrdiff_t num_rows,
                                ptrdiff_t num_columns, real *sums)
{
    const mask inside = lanes_before(num_columns % LANES);
    vec sum[SMALL * SMALL];
    real lane[SMALL * SMALL * LANES];
    ptrdiff_t y = 0;
    UNROLL(9)
    for (int t = 0; t < SMALL * SMALL; t++)
        sum[t] = (vec){0};
    for (; y + BAND <= num_rows; y += BAND)
        add_small_rows(BAND, w, y, gradient, gradient_stride, num_columns, inside, sum);
    for (; y < num_rows; y++)
        add_small_rows(1, w, y, gradient, gradient_stride, num_columns, inside, sum);
    UNROLL(9)
    for (int t = 0; t < SMALL * SMALL; t++)
        store(lane + t * LANES, sum[t]);
    sum_lanes(SMALL * SMALL, lane, sums);
}

/* In registers: the sums of a few taps, and a vector of gradients. */
enum { FEW = 5 };

static void sum_gradients_of_taps(const windows *w, const real *const tap[FEW],
                                  const real *gradient, ptrdiff_t gradient_stride,
                                  ptrdiff_t num_rows, ptrdiff_t num_columns, real *sums)
{
    const mask inside = lanes_before(num_columns % LANES);
    vec sum[FEW];
    real lane[FEW * LANES];
    UNROLL(5)
    for (int t = 0; t < FEW; t++)
        sum[t] = (vec){0};
    for (ptrdiff_t y = 0, row = 0; y < num_rows; y++, row += w->row_step) {
        ptrdiff_t x = 0;
        for (; x + LANES <= num_columns; x += LANES)
            UNROLL(5)
            for (int t = 0; t < FEW; t++)
                sum[t] += load(gradient + x) * load(tap[t] + row + x);
        if (x < num_columns)
            UNROLL(5)
            for (int t = 0; t < FEW; t++)
                sum[t] += load(gradient + x) * load_inside(0, tap[t] + row + x, inside);
        gradient += gradient_stride;
    }
    UNROLL(5)
    for (int t = 0; t < FEW; t++)
        store(lane + t * LANES, sum[t]);
    sum_lanes(FEW, lane, sums);
}

static void depthwise_gradient(ptrdiff_t taps_h, ptrdiff_t taps_w, const void *gradient,
                               ptrdiff_t gradient_stride, const void *pixels, ptrdiff_t row_step,
                               ptrdiff_t tap_step, const ptrdiff_t *offset, ptrdiff_t num_rows,
                               ptrdiff_t num_columns, void *sums_)
{
    const windows w = describe_windows(taps_h, taps_w, pixels, row_step, tap_step, offset);
    real *sums = sums_;
    if (are_small(&w)) {
        sum_small_gradients(&w, gradient, gradient_stride, num_rows, num_columns, sums);
        return;
    }
    /* The last tap stands for those that the last few lack. */
    const ptrdiff_t last = taps_h * taps_w - 1;
    for (ptrdiff_t t = 0; t <= last; t += FEW) {
        const real *tap[FEW];
        real few[FEW];
        for (ptrdiff_t i = 0; i < FEW; i++) {
            const ptrdiff_t at = t + i < last ? t + i : last;
            tap[i] = w.pixels + at / taps_w * tap_step + offset[at % taps_w];
        }
        sum_gradients_of_taps(&w, tap, gradient, gradient_stride, num_rows, num_columns, few);
        for (ptrdiff_t i = 0; i < FEW && t + i <= last; i++)
            sums[t + i] = few[i];
    }
}

#endif
