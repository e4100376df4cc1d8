/* Checks of the Fourier transforms: the order of their values is their own, so that what comes back
 * is compared, with circular correlations. */
#ifndef CONVEXT_TEST_CHECK_FFT_H
#define CONVEXT_TEST_CHECK_FFT_H

#include "checks.h"

typedef struct {
    ptrdiff_t rows, columns, count;
    const real *twiddles;
    real *strip;
} transforms;

static void fill_twiddles(real *twiddles, ptrdiff_t size, ptrdiff_t most)
{
    const wide pi = acosl(-1);
    for (; size <= most; size *= 2)
        for (ptrdiff_t k = 0; k < size / 4; k++)
            for (ptrdiff_t power = 1; power <= 3; power++) {
                real *to = twiddles + 9 * (size / 2 - 2) + 6 * k + 2 * (power - 1);
                to[0] = (real)cosl(-2 * pi * (wide)(k * power) / (wide)size);
                to[1] = (real)sinl(-2 * pi * (wide)(k * power) / (wide)size);
            }
}

static transforms draw_transforms(const table *micro)
{
    static const ptrdiff_t sizes[] = {16, 32, 48, 64, 96};
    const ptrdiff_t rows = sizes[between(0, 4)], columns = sizes[between(0, 4)];
    const ptrdiff_t most = MAX(rows, columns);
    real *twiddles = room_for(6 * most, sizeof *twiddles);
    memset(twiddles, 0, (size_t)(6 * most) * sizeof *twiddles);
    fill_twiddles(twiddles, 4, most);
    fill_twiddles(twiddles, 12, most);
    protect(twiddles);
    return (transforms){rows, columns, 2 * rows * columns, twiddles,
                        scratch(2 * rows * micro->lanes).at};
}

static convext_fft_pixels draw_pixels(ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t pitch = columns + between(0, 5);
    return (convext_fft_pixels){rows ? (void *)input((rows - 1) * pitch + columns) : NULL, pitch,
                                rows, columns};
}

/* Zero where there is none. */
static wide pixel_at(const convext_fft_pixels *tile, ptrdiff_t y, ptrdiff_t x)
{
    return y < tile->rows && x < tile->columns ? ((real *)tile->data)[y * tile->pitch + x] : 0;
}

static wide squares_of(const convext_fft_pixels *tile)
{
    wide squares = 0;
    for (ptrdiff_t y = 0; y < tile->rows; y++)
        for (ptrdiff_t x = 0; x < tile->columns; x++)
            squares += pixel_at(tile, y, x) * pixel_at(tile, y, x);
    return squares;
}

/* The transforms of `count` kernels, from `values` on. */
static void transform_kernels(const table *micro, const transforms *f, ptrdiff_t count,
                              const convext_fft_pixels *kernels, real *values)
{
    for (ptrdiff_t c = 0; c < count; c++) {
        const convext_fft_pixels pair[2] = {kernels[c], {NULL, 0, 0, 0}};
        micro->fft_forward(f->rows, f->columns, pair, kernels[c].columns, f->twiddles, f->strip,
                           values + c * f->count, NULL, NULL, 0);
        micro->fft_conjugate(f->rows * f->columns, values + c * f->count);
    }
}

enum { MOST_CHANNELS = 3, MOST_PAIRS = 4 };

/* Pairs of tiles with some channels each, and a kernel. */
typedef struct {
    ptrdiff_t pairs, channels;
    convext_fft_pixels tile[MOST_PAIRS][MOST_CHANNELS][2];
    convext_fft_pixels kernel[MOST_CHANNELS];
} convolution;

/* Tiles and kernels of whole vectors: what is in these counts. */
static convolution draw_convolution(const table *micro, const transforms *f, ptrdiff_t pairs,
                                    ptrdiff_t channels)
{
    convolution c = {.pairs = pairs, .channels = channels};
    for (ptrdiff_t i = 0; i < channels; i++) {
        for (ptrdiff_t p = 0; p < pairs; p++) {
            const ptrdiff_t columns =
                rounded_up(between(1, f->columns), micro->lanes);
            c.tile[p][i][0] = draw_pixels(between(1, f->rows), columns);
            c.tile[p][i][1] = draw_pixels(between(0, f->rows), columns);
        }
        c.kernel[i] = draw_pixels(between(1, 5), micro->lanes);
    }
    return c;
}

/* A result of a tile of a pair. */
static wide result_of(const transforms *f, const convolution *c, ptrdiff_t pair, int second,
                      ptrdiff_t y, ptrdiff_t x)
{
    wide sum = 0;
    for (ptrdiff_t i = 0; i < c->channels; i++) {
        const convext_fft_pixels *tile = &c->tile[pair][i][second], *kernel = &c->kernel[i];
        for (ptrdiff_t a = 0; a < kernel->rows; a++)
            for (ptrdiff_t b = 0; b < kernel->columns; b++)
                sum += pixel_at(kernel, a, b)
                       * pixel_at(tile, (y + a) % f->rows, (x + b) % f->columns);
    }
    return f->rows * f->columns * sum;
}

/* Rounding errors follow the squares of both tiles and of the kernel. */
static double rounding_of(const transforms *f, const convolution *c, ptrdiff_t pair)
{
    wide magnitude = 0;
    for (ptrdiff_t i = 0; i < c->channels; i++) {
        const convext_fft_pixels *tile = c->tile[pair][i];
        magnitude += sqrtl((squares_of(&tile[0]) + squares_of(&tile[1]))
                           * squares_of(&c->kernel[i]));
    }
    return (double)(4 * EPSILON * f->rows * f->columns * (magnitude + 1));
}

/* All of it: transformed, multiplied and transformed back, with or without what is there. */
static void check_convolution(const table *micro, const transforms *f, const convolution *c,
                              ptrdiff_t pair_stride, double bias, int accumulate)
{
    real *values = scratch(c->pairs * pair_stride).at;
    real *kernels = scratch(c->channels * f->count).at;
    real *sums = scratch(c->pairs * pair_stride).at;
    transform_kernels(micro, f, c->channels, c->kernel, kernels);
    for (ptrdiff_t p = 0; p < c->pairs; p++)
        for (ptrdiff_t i = 0; i < c->channels; i++)
            micro->fft_forward(f->rows, f->columns, c->tile[p][i], c->tile[p][i][0].columns,
                               f->twiddles, f->strip, values + p * pair_stride + i * f->count,
                               NULL, NULL, 0);
    micro->fft_products(f->rows, f->columns, c->pairs, c->channels, values, pair_stride, f->count,
                        kernels, f->count, f->twiddles, sums, pair_stride);
    for (ptrdiff_t p = 0; p < c->pairs; p++) {
        output out[2];
        convext_fft_pixels tile[2];
        const double bound = rounding_of(f, c, p);
        for (int s = 0; s < 2; s++) {
            const ptrdiff_t rows = between(s == 0, f->rows);
            const ptrdiff_t columns = rows ? between(1, f->columns) : 0;
            const ptrdiff_t pitch = columns + between(0, 5);
            out[s] = result(rows ? (rows - 1) * pitch + columns : 1);
            tile[s] = (convext_fft_pixels){out[s].at, pitch, rows, columns};
            /* Some of them: each is a sum over a whole kernel. */
            for (ptrdiff_t i = 0; i < rows * columns; i++) {
                const ptrdiff_t at = i / columns * pitch + i % columns;
                if (i % 7 && i < rows * columns - columns)
                    may_change(&out[s], at);
                else
                    want_within(&out[s], at,
                                bias + (accumulate ? out[s].before[at] : 0)
                                    + result_of(f, c, p, s, i / columns, i % columns),
                                bound);
            }
        }
        micro->fft_results(f->rows, f->columns, sums + p * pair_stride, bias, f->twiddles,
                           f->strip, tile, accumulate);
        check("first tile", &out[0]);
        check("second tile", &out[1]);
    }
}

static void check_fft_products(const table *micro, int turn)
{
    const transforms f = draw_transforms(micro);
    const convolution c =
        draw_convolution(micro, &f, 1 << turn % 3, between(1, MOST_CHANNELS));
    check_convolution(micro, &f, &c, c.channels * f.count + micro->lanes * between(0, 2), 0, 0);
}

static void check_fft_results(const table *micro, int turn)
{
    const transforms f = draw_transforms(micro);
    const convolution c = draw_convolution(micro, &f, 1, 1);
    check_convolution(micro, &f, &c, f.count, number(), turn % 2);
}

/* Rows of a tile, and pairs of them, as many as there can be. */
static convext_fft_rows draw_rows(const convext_fft_pixels *tile)
{
    convext_fft_rows rows = {0, 0, 1, 0, 0};
    if (tile->rows >= 2) {
        rows.spread = between(1, MIN(3, tile->rows - 1));
        rows.height = between(2, (tile->rows - 1) / rows.spread + 1);
        rows.top = between(0, tile->rows - 1 - (rows.height - 1) * rows.spread);
        rows.pairs = between(1, MIN(rows.height - 1, 12));
        rows.group = between(1, 4);
    }
    return rows;
}

/* What `fft_forward` adds to `least`, a row for each group of pairs. The last pairs, if not all, lie
 * farther apart. */
static void want_least(output *least, ptrdiff_t at, const convext_fft_pixels *tile,
                       const convext_fft_rows *rows, ptrdiff_t columns)
{
    const ptrdiff_t distance = rows->pairs ? (rows->height - 1) / rows->pairs : 0;
    const ptrdiff_t near = rows->pairs * (distance + 1) - (rows->height - 1);
    for (ptrdiff_t first = 0; first < rows->pairs; first += rows->group, at += columns)
        for (ptrdiff_t x = 0; x < tile->columns; x++) {
            wide smallest = 1e38L;
            for (ptrdiff_t i = first; i < rows->pairs && i < first + rows->group; i++) {
                const ptrdiff_t above = i * distance + MAX(0, i - near);
                const ptrdiff_t below = (i + 1) * distance + MAX(0, i + 1 - near);
                const wide a = pixel_at(tile, rows->top + above * rows->spread, x);
                const wide b = pixel_at(tile, rows->top + below * rows->spread, x);
                smallest = MIN(smallest, a * a + b * b);
            }
            const wide before = least->before[at + x];
            want(least, at + x, before + smallest, fabsl(before) + smallest);
        }
}

static void check_fft_forward(const table *micro, int turn)
{
    (void)turn;
    const transforms f = draw_transforms(micro);
    const convolution c = draw_convolution(micro, &f, 1, 1);
    const convext_fft_pixels *tile = c.tile[0][0];
    const convext_fft_rows rows[2] = {draw_rows(&tile[0]), draw_rows(&tile[1])};
    const ptrdiff_t least_stride = 12 * f.columns;
    output least = result(2 * least_stride), values = scratch(f.count);
    const wide squares = squares_of(&tile[0]) + squares_of(&tile[1]);

    for (int i = 0; i < 2; i++)
        want_least(&least, i * least_stride, &tile[i], &rows[i], f.columns);
    const double got =
        micro->fft_forward(f.rows, f.columns, tile, tile[0].columns, f.twiddles, f.strip,
                           values.at, rows, least.at, least_stride);
    check_number("sum of squares", got, squares, tolerance(4 * squares));
    check("least", &least);
    check_convolution(micro, &f, &c, f.count, 0, 0);
}

static void check_fft_conjugate(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t count = micro->lanes * between(1, 20);
    output values = result(2 * count);
    for (ptrdiff_t i = 0; i < 2 * count; i++)
        want_within(&values, i, i / micro->lanes % 2 ? -values.before[i] : values.before[i], 0);
    micro->fft_conjugate(count, values.at);
    check("values", &values);
}

#endif
