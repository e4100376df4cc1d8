/* Checks of Winograd's transforms: beside matrices made from the points alone. */
#ifndef CONVEXT_TEST_CHECK_WINOGRAD_H
#define CONVEXT_TEST_CHECK_WINOGRAD_H

#include "checks.h"

enum { POINTS = CONVEXT_WINOGRAD_POINTS, CHANNELS = CONVEXT_WINOGRAD_CHANNELS };
enum { VALUES = CONVEXT_WINOGRAD_VALUES, INFINITE = CONVEXT_WINOGRAD_AT_INFINITY };

/* docs/winograd.md; the second one, whose number here is of no meaning, is infinity. */
static const wide point[POINTS] = {0, 0, 43 / 64.0L, -43 / 64.0L, 1.5L, -1.5L};

/* Of one axis: outputs[i] = sum over j of at[i][j] * inputs[j]. */
typedef struct {
    ptrdiff_t outputs, inputs;
    wide at[POINTS][POINTS];
} matrix;

static wide power(wide base, ptrdiff_t exponent)
{
    wide result = 1;
    for (; exponent > 0; exponent--)
        result *= base;
    return result;
}

/* One over the product of a point's distances from the other ones. */
static wide factor_of(int p)
{
    wide product = 1;
    for (int q = 0; q < POINTS && p != INFINITE; q++)
        if (q != p && q != INFINITE)
            product *= point[p] - point[q];
    return 1 / product;
}

/* The values of a polynomial of `taps` coefficients, whose highest power is that of all. */
static matrix evaluation(ptrdiff_t taps, int with_factors)
{
    matrix m = {POINTS, taps, {{0}}};
    for (int p = 0; p < POINTS; p++)
        for (ptrdiff_t t = 0; t < taps; t++) {
            m.at[p][t] = p == INFINITE ? t == taps - 1 : power(point[p], t);
            if (with_factors)
                m.at[p][t] *= factor_of(p);
        }
    return m;
}

/* The transform of pixels: row p has the coefficients of the product of x - q over all finite points
 * q but p. */
static matrix pixel_transform(void)
{
    matrix m = {POINTS, POINTS, {{0}}};
    for (int p = 0; p < POINTS; p++) {
        ptrdiff_t degree = 0;
        m.at[p][0] = 1;
        for (int q = 0; q < POINTS; q++)
            if (q != p && q != INFINITE) {
                degree++;
                for (ptrdiff_t i = degree; i >= 0; i--)
                    m.at[p][i] = (i > 0 ? m.at[p][i - 1] : 0) - point[q] * m.at[p][i];
            }
    }
    return m;
}

/* From the sums of products to `results` results. */
static matrix interpolation(ptrdiff_t results, int with_factors)
{
    matrix m = {results, POINTS, {{0}}};
    for (ptrdiff_t r = 0; r < results; r++)
        for (int p = 0; p < POINTS; p++) {
            m.at[r][p] = p == INFINITE ? r == results - 1 : power(point[p], r);
            if (with_factors)
                m.at[r][p] *= factor_of(p);
        }
    return m;
}

/* Where the elements of a square lie: that in row i and column j is at[i * down + j * across]. */
typedef struct {
    const real *at;
    ptrdiff_t down, across;
} square;

/* Element (i, j) of m * from * m transposed, plus `bias`. */
static void want_transformed(output *to, ptrdiff_t at, const matrix *m, square from, ptrdiff_t i,
                             ptrdiff_t j, wide bias)
{
    wide sum = bias, magnitude = fabsl(bias);
    for (ptrdiff_t a = 0; a < m->inputs; a++)
        for (ptrdiff_t b = 0; b < m->inputs; b++) {
            const wide term = m->at[i][a] * m->at[j][b] * from.at[a * from.down + b * from.across];
            sum += term;
            magnitude += fabsl(term);
        }
    want_within(to, at, sum, (double)(8 * EPSILON * magnitude));
}

/* What lies between a count and the whole vectors that it is rounded up to. */
static void vectors_may_change(output *to)
{
    for (ptrdiff_t i = 0; i < to->count; i++)
        may_change(to, i);
}

static void check_winograd_kernels(const table *micro, int turn)
{
    const int taps = turn % 2 ? 3 : 5;
    const ptrdiff_t width = micro->winograd_width, squared = taps * taps;
    const ptrdiff_t channels = between(1, 5), kernels = between(1, width);
    const ptrdiff_t whole = rounded_up(kernels, micro->lanes);
    const ptrdiff_t tap_stride = width + between(0, 3) * between(0, 1);
    const ptrdiff_t stride = channels * width + between(0, 3);
    const real *from =
        input((channels - 1) * squared * width + (squared - 1) * tap_stride + whole);
    const matrix m = evaluation(taps, 1);
    output to = result((VALUES - 1) * stride + (channels - 1) * width + whole);

    vectors_may_change(&to);
    for (ptrdiff_t c = 0; c < channels; c++)
        for (ptrdiff_t k = 0; k < kernels; k++)
            for (ptrdiff_t v = 0; v < VALUES; v++)
                want_transformed(&to, v * stride + c * width + k, &m,
                                 (square){from + c * squared * width + k, taps * tap_stride,
                                          tap_stride},
                                 v / POINTS, v % POINTS, 0);
    micro->winograd_kernels(taps, channels, kernels, from, tap_stride, to.at, stride);
    check("values", &to);
}

/* Tiles of a row, of channels or kernels of which 32 lie side by side. */
static void check_tiles(const table *micro, const matrix *m, ptrdiff_t step, int of_gradients)
{
    const ptrdiff_t tiles = between(1, 9), channels = between(1, CHANNELS);
    const ptrdiff_t whole = rounded_up(channels, micro->lanes);
    const ptrdiff_t columns = (tiles - 1) * step + m->inputs;
    const ptrdiff_t row_stride = columns * CHANNELS + between(0, 3);
    const ptrdiff_t stride = tiles * CHANNELS + between(0, 3);
    const real *panel = input((m->inputs - 1) * row_stride + (columns - 1) * CHANNELS + whole);
    output to = result((VALUES - 1) * stride + (tiles - 1) * CHANNELS + whole);

    vectors_may_change(&to);
    for (ptrdiff_t t = 0; t < tiles; t++)
        for (ptrdiff_t c = 0; c < channels; c++)
            for (ptrdiff_t v = 0; v < VALUES; v++)
                want_transformed(&to, v * stride + t * CHANNELS + c, m,
                                 (square){panel + t * step * CHANNELS + c, row_stride, CHANNELS},
                                 v / POINTS, v % POINTS, 0);
    if (of_gradients)
        micro->winograd_gradients(tiles, channels, panel, row_stride, to.at, stride);
    else
        micro->winograd_pixels((int)step, tiles, channels, panel, row_stride, to.at, stride);
    check("values", &to);
}

static void check_winograd_pixels(const table *micro, int turn)
{
    const matrix m = pixel_transform();
    check_tiles(micro, &m, turn % 2 ? 4 : 2, 0);
}

static void check_winograd_gradients(const table *micro, int turn)
{
    (void)turn;
    const matrix m = evaluation(4, 0);
    check_tiles(micro, &m, 4, 1);
}

/* Some channels after others. */
static void check_winograd_products(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t width = micro->winograd_width, tiles = between(1, 20);
    const ptrdiff_t kernels = between(1, width), whole = rounded_up(kernels, micro->lanes);
    const ptrdiff_t count = (tiles - 1) * width + whole, calls = between(1, 3);
    output sums = scratch(count), errors = scratch(count);
    double *magnitude = room_for(count, sizeof *magnitude);

    for (ptrdiff_t call = 0; call < calls; call++) {
        const ptrdiff_t channels = between(1, CHANNELS);
        const real *values = input((tiles - 1) * CHANNELS + channels);
        const real *weights = input((channels - 1) * width + whole);
        for (ptrdiff_t t = 0; t < tiles; t++)
            for (ptrdiff_t k = 0; k < kernels; k++) {
                const ptrdiff_t at = t * width + k;
                wide sum = call == 0 ? 0 : sums.want[at];
                magnitude[at] = call == 0 ? 0 : magnitude[at];
                for (ptrdiff_t c = 0; c < channels; c++) {
                    const wide product = (wide)values[t * CHANNELS + c] * weights[c * width + k];
                    sum += product;
                    magnitude[at] += (double)fabsl(product);
                }
                want(&sums, at, sum, magnitude[at]);
            }
        micro->winograd_products(tiles, channels, kernels, values, weights, sums.at, errors.at,
                                 call == 0, call == calls - 1);
    }
    check("sums", &sums);
}

static void check_winograd_results(const table *micro, int turn)
{
    const int tile = turn % 2 ? 4 : 2;
    const ptrdiff_t width = micro->winograd_width, kernels = between(1, width);
    const ptrdiff_t whole = rounded_up(kernels, micro->lanes);
    const ptrdiff_t rows = between(1, tile), columns = between(1, 4 * tile);
    const ptrdiff_t tiles = (columns + tile - 1) / tile, stride = tiles * width + between(0, 3);
    const ptrdiff_t row_stride = columns * width + between(0, 3);
    const real *sums = input((VALUES - 1) * stride + (tiles - 1) * width + whole);
    const real *bias = input(whole);
    const matrix m = interpolation(tile, 0);
    output to = result((rows - 1) * row_stride + (columns - 1) * width + whole);

    for (ptrdiff_t i = 0; i < to.count; i++)
        if (i % row_stride < columns * width)
            may_change(&to, i);
    for (ptrdiff_t y = 0; y < rows; y++)
        for (ptrdiff_t x = 0; x < columns; x++)
            for (ptrdiff_t k = 0; k < kernels; k++)
                want_transformed(&to, y * row_stride + x * width + k, &m,
                                 (square){sums + x / tile * width + k, POINTS * stride, stride}, y,
                                 x % tile, bias[k]);
    micro->winograd_results(tile, kernels, sums, stride, bias, rows, columns, to.at, row_stride);
    check("results", &to);
}

/* A transform of one axis, without the point that two taps lack, or both that one tap does. */
static matrix line_transform(int what, int taps)
{
    const ptrdiff_t points = taps + CONVEXT_WINOGRAD_PHASE_TILE - 1;
    matrix all = what == CONVEXT_WINOGRAD_PIXELS ? pixel_transform()
                 : what == CONVEXT_WINOGRAD_TAPS ? evaluation(taps, 1)
                                                 : interpolation(4, 0);
    matrix m = {what == CONVEXT_WINOGRAD_RESULTS ? 4 : points,
                what == CONVEXT_WINOGRAD_TAPS ? taps : points, {{0}}};
    if (taps == 1) {
        m.outputs = m.inputs;
        for (ptrdiff_t i = 0; i < m.inputs; i++)
            m.at[i][i] = 1;
        return m;
    }
    for (ptrdiff_t i = 0; i < m.outputs; i++)
        for (ptrdiff_t j = 0; j < m.inputs; j++) {
            const int no_infinity = taps == 2;
            const int row = no_infinity && what != CONVEXT_WINOGRAD_RESULTS && i > 0;
            const int column = no_infinity && what == CONVEXT_WINOGRAD_RESULTS && j > 0;
            m.at[i][j] = all.at[i + row][j + column];
        }
    return m;
}

static void check_winograd_lines(const table *micro, int turn)
{
    static const int kinds[] = {CONVEXT_WINOGRAD_PIXELS, CONVEXT_WINOGRAD_TAPS,
                                CONVEXT_WINOGRAD_RESULTS};
    const int what = kinds[turn % 3], taps = 1 + turn / 3 % 3, accumulate = (int)between(0, 1);
    const int adds = what == CONVEXT_WINOGRAD_RESULTS && accumulate;
    const matrix m = line_transform(what, taps);
    const ptrdiff_t lines = between(1, 5), size = micro->lanes * between(1, 3);
    const ptrdiff_t from_stride = size + between(0, 3), to_stride = size + between(0, 3);
    const ptrdiff_t from_step = between(0, 7 * size);
    const ptrdiff_t to_step = m.outputs * to_stride + between(0, 3);
    const real *from = input((lines - 1) * from_step + (m.inputs - 1) * from_stride + size);
    output to = result((lines - 1) * to_step + (m.outputs - 1) * to_stride + size);

    for (ptrdiff_t n = 0; n < lines; n++)
        for (ptrdiff_t j = 0; j < m.outputs; j++)
            for (ptrdiff_t i = 0; i < size; i++) {
                const ptrdiff_t at = n * to_step + j * to_stride + i;
                wide sum = adds ? to.before[at] : 0, magnitude = fabsl(sum);
                for (ptrdiff_t a = 0; a < m.inputs; a++) {
                    const wide term = m.at[j][a] * from[n * from_step + a * from_stride + i];
                    sum += term;
                    magnitude += fabsl(term);
                }
                want_within(&to, at, sum, (double)(8 * EPSILON * magnitude));
            }
    micro->winograd_lines(what, taps, lines, size, from, from_step, from_stride, to.at, to_step,
                          to_stride, accumulate);
    check("line", &to);
}

static void check_winograd_gradient_products(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t tiles = one_in(8) ? between(30, 70) : between(1, 20);
    const ptrdiff_t kernels = between(1, CHANNELS), channels = between(1, CHANNELS);
    const ptrdiff_t whole = rounded_up(channels, micro->lanes);
    const ptrdiff_t stride = tiles * CHANNELS + between(0, 3);
    const ptrdiff_t sums_stride = kernels * CHANNELS + between(0, 3);
    const real *gradients = input((VALUES - 1) * stride + (tiles - 1) * CHANNELS + kernels);
    const real *pixels = input((VALUES - 1) * stride + (tiles - 1) * CHANNELS + whole);
    output sums = result((VALUES - 1) * sums_stride + (kernels - 1) * CHANNELS + whole);

    vectors_may_change(&sums);
    for (ptrdiff_t v = 0; v < VALUES; v++)
        for (ptrdiff_t k = 0; k < kernels; k++)
            for (ptrdiff_t c = 0; c < channels; c++) {
                wide sum = 0, magnitude = 0;
                for (ptrdiff_t t = 0; t < tiles; t++) {
                    const wide product = (wide)gradients[v * stride + t * CHANNELS + k]
                                         * pixels[v * stride + t * CHANNELS + c];
                    sum += product;
                    magnitude += fabsl(product);
                }
                want(&sums, v * sums_stride + k * CHANNELS + c, sum, magnitude);
            }
    micro->winograd_gradient_products(tiles, kernels, channels, gradients, pixels, stride, sums.at,
                                      sums_stride);
    check("sums", &sums);
}

static void check_winograd_taps(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t kernels = between(1, CHANNELS), channels = between(1, CHANNELS), taps = 3;
    const ptrdiff_t whole = rounded_up(channels, micro->lanes);
    const ptrdiff_t count = (kernels - 1) * CHANNELS + whole;
    const ptrdiff_t stride = count + between(0, 3), to_stride = count + between(0, 3);
    const real *sums = input((VALUES - 1) * stride + count);
    const matrix m = interpolation(taps, 1);
    output to = result((taps * taps - 1) * to_stride + count);

    vectors_may_change(&to);
    for (ptrdiff_t t = 0; t < taps * taps; t++)
        for (ptrdiff_t k = 0; k < kernels; k++)
            for (ptrdiff_t c = 0; c < channels; c++)
                want_transformed(&to, t * to_stride + k * CHANNELS + c, &m,
                                 (square){sums + k * CHANNELS + c, POINTS * stride, stride},
                                 t / taps, t % taps, 0);
    micro->winograd_taps(kernels, channels, sums, stride, to.at, to_stride);
    check("taps", &to);
}

#endif
