/* The transforms of Winograd's convolution F(4x4, 3x3), on vectors of channels or of kernels:
 * correlating 6x6 pixels with 3x3 taps to 4x4 results is evaluating both as polynomials at six
 * points along each axis, multiplying 36 values, and interpolating.
 *
 * The points are 0, infinity, +-43/64 and +-3/2, in this order. With them errors grow little, and all
 * factors but those of the kernels are exact in float; see docs/winograd.md. */
#ifndef CONVEXT_WINOGRAD_H
#define CONVEXT_WINOGRAD_H

#include "microkernel.h"
#include "simd.h"

#define POINT_A (43.0 / 64)
#define POINT_B 1.5
#define SQUARE_A (POINT_A * POINT_A)
#define SQUARE_B (POINT_B * POINT_B)

enum { TILE = 4, TAPS = 3, POINTS = 6, CHANNELS = CONVEXT_WINOGRAD_CHANNELS };

/* So many chains of sums, of so many tiles and vectors of kernels, fit the registers. More chains
 * round less, more vectors need fewer loads. */
#if CONVEXT_REGISTERS >= 32
enum { CHAINS = 4, PRODUCT_TILES = 7, PRODUCT_VECTORS = 1 };
#define FOR_PRODUCT_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#else
enum { CHAINS = 2, PRODUCT_TILES = 3, PRODUCT_VECTORS = 2 };
#define FOR_PRODUCT_TILES(X) X(1) X(2) X(3)
#endif
enum { WIDTH = 2 * LANES };

/* The values of a polynomial of three taps, without the factors of `kernel_factor`. */
CONVEXT_INLINE void evaluate_taps(const vec tap[TAPS], vec value[POINTS])
{
    const vec even_a = tap[0] + (real)SQUARE_A * tap[2];
    const vec even_b = tap[0] + (real)SQUARE_B * tap[2];
    value[0] = tap[0];
    value[1] = tap[2];
    value[2] = even_a + (real)POINT_A * tap[1];
    value[3] = even_a - (real)POINT_A * tap[1];
    value[4] = even_b + (real)POINT_B * tap[1];
    value[5] = even_b - (real)POINT_B * tap[1];
}

/* One over the product of a point's distances from the other ones. */
static const double kernel_factor[POINTS] = {
    1 / (SQUARE_A * SQUARE_B),
    1,
    1 / (2 * SQUARE_A * (SQUARE_A - SQUARE_B)),
    1 / (2 * SQUARE_A * (SQUARE_A - SQUARE_B)),
    1 / (2 * SQUARE_B * (SQUARE_B - SQUARE_A)),
    1 / (2 * SQUARE_B * (SQUARE_B - SQUARE_A)),
};

CONVEXT_INLINE void transform_kernel(const real *taps, ptrdiff_t tap_stride, real *to,
                                     ptrdiff_t to_stride)
{
    vec columns[TAPS][POINTS], values[POINTS];
    UNROLL(3)
    for (int j = 0; j < TAPS; j++) {
        vec column[TAPS];
        UNROLL(3)
        for (int i = 0; i < TAPS; i++)
            column[i] = load(taps + (i * TAPS + j) * tap_stride);
        evaluate_taps(column, columns[j]);
    }
    UNROLL(6)
    for (int i = 0; i < POINTS; i++) {
        const vec row[TAPS] = {columns[0][i], columns[1][i], columns[2][i]};
        evaluate_taps(row, values);
        UNROLL(6)
        for (int j = 0; j < POINTS; j++)
            store(to + (i * POINTS + j) * to_stride,
                  values[j] * (real)(kernel_factor[i] * kernel_factor[j]));
    }
}

static void winograd_kernels(ptrdiff_t num_channels, ptrdiff_t num_kernels, const void *taps_,
                             ptrdiff_t tap_stride, void *to_, ptrdiff_t to_stride)
{
    const real *taps = taps_;
    real *to = to_;
    for (ptrdiff_t c = 0; c < num_channels; c++)
        for (ptrdiff_t k = 0; k < num_kernels; k += LANES)
            transform_kernel(taps + c * TAPS * TAPS * WIDTH + k, tap_stride, to + c * WIDTH + k,
                             to_stride);
}

/* Two of the values of six pixels: at 0 and infinity, at +-A or at +-B. */
CONVEXT_INLINE void transform_pixels(const int pair, const vec pixel[POINTS], vec value[2])
{
    if (pair == 0) {
        UNROLL(2)
        for (int i = 0; i < 2; i++)
            value[i] = (real)(SQUARE_A * SQUARE_B) * pixel[i]
                       + (pixel[i + 4] - (real)(SQUARE_A + SQUARE_B) * pixel[i + 2]);
    } else {
        const real point = pair == 1 ? POINT_A : POINT_B;
        const real other_square = pair == 1 ? SQUARE_B : SQUARE_A;
        const vec even = pixel[4] - other_square * pixel[2];
        const vec odd = pixel[3] - other_square * pixel[1];
        value[0] = even + point * odd;
        value[1] = even - point * odd;
    }
}

/* One pair of rows of the transforms of neighbouring tiles. In registers: these rows of the six
 * columns of a tile, two of which are the next tile's, too. */
CONVEXT_INLINE void transform_row_pair(const int pair, ptrdiff_t num_tiles, const real *panel,
                                       ptrdiff_t row_stride, real *to, ptrdiff_t to_stride)
{
    vec row[2][POINTS];
    for (ptrdiff_t tile = -1; tile < num_tiles; tile++) {
        UNROLL(6)
        for (int j = 0; j < POINTS; j++) {
            vec pixel[POINTS], value[2];
            if (j < POINTS - TILE) {
                row[0][j] = row[0][j + TILE];
                row[1][j] = row[1][j + TILE];
                continue;
            }
            if (tile < 0 && j < TILE)
                continue;
            UNROLL(6)
            for (int i = 0; i < POINTS; i++)
                pixel[i] = load(panel + i * row_stride + (tile * TILE + j) * CHANNELS);
            transform_pixels(pair, pixel, value);
            row[0][j] = value[0];
            row[1][j] = value[1];
        }
        if (tile < 0)
            continue;
        UNROLL(2)
        for (int i = 0; i < 2; i++)
            UNROLL(3)
            for (int p = 0; p < POINTS / 2; p++) {
                vec value[2];
                transform_pixels(p, row[i], value);
                store(to + (i * POINTS + 2 * p) * to_stride + tile * CHANNELS, value[0]);
                store(to + (i * POINTS + 2 * p + 1) * to_stride + tile * CHANNELS, value[1]);
            }
    }
}

static void winograd_pixels(ptrdiff_t num_tiles, ptrdiff_t num_channels, const void *panel_,
                            ptrdiff_t row_stride, void *to_, ptrdiff_t to_stride)
{
    const real *panel = panel_;
    real *to = to_;
    for (ptrdiff_t c = 0; c < num_channels; c += LANES) {
        transform_row_pair(0, num_tiles, panel + c, row_stride, to + c, to_stride);
        transform_row_pair(1, num_tiles, panel + c, row_stride, to + c + 2 * POINTS * to_stride,
                           to_stride);
        transform_row_pair(2, num_tiles, panel + c, row_stride, to + c + 4 * POINTS * to_stride,
                           to_stride);
    }
}

/* The kernels of the next value are asked for early: they come from far away. */
CONVEXT_INLINE void add_channel(const int tiles, const int vectors, const real *values,
                                const real *kernels, vec sum[PRODUCT_TILES][PRODUCT_VECTORS])
{
    vec kernel[PRODUCT_VECTORS];
    UNROLL(2)
    for (int v = 0; v < vectors; v++) {
        kernel[v] = load(kernels + v * LANES);
        __builtin_prefetch(kernels + v * LANES + CHANNELS * WIDTH);
    }
    UNROLL(7)
    for (int t = 0; t < tiles; t++) {
        const vec value = splat(values[t * CHANNELS]);
        UNROLL(2)
        for (int v = 0; v < vectors; v++)
            sum[t][v] += value * kernel[v];
    }
}

/* In registers: tiles x vectors sums in chains, of the channels in turns. They round less than one
 * chain of all channels, and no sum waits for the one before. From L1: the values of these tiles.
 * Streams: the kernels. */
CONVEXT_INLINE void multiply(const int tiles, const int vectors, ptrdiff_t num_channels,
                             const real *values, const real *kernels, real *sums, int accumulate)
{
    vec chain[CHAINS][PRODUCT_TILES][PRODUCT_VECTORS];
    ptrdiff_t c = 0;

    UNROLL(4)
    for (int i = 0; i < CHAINS; i++)
        UNROLL(7)
        for (int t = 0; t < tiles; t++)
            UNROLL(2)
            for (int v = 0; v < vectors; v++)
                chain[i][t][v] = (vec){0};

    for (; c + CHAINS <= num_channels; c += CHAINS)
        UNROLL(4)
        for (int i = 0; i < CHAINS; i++)
            add_channel(tiles, vectors, values + c + i, kernels + (c + i) * WIDTH, chain[i]);
    for (; c < num_channels; c++)
        add_channel(tiles, vectors, values + c, kernels + c * WIDTH, chain[0]);

    UNROLL(7)
    for (int t = 0; t < tiles; t++)
        UNROLL(2)
        for (int v = 0; v < vectors; v++) {
            real *to = sums + t * WIDTH + v * LANES;
            vec sum = chain[0][t][v] + chain[1][t][v];
            if (CHAINS == 4)
                sum += chain[CHAINS - 2][t][v] + chain[CHAINS - 1][t][v];
            store(to, accumulate ? load(to) + sum : sum);
        }
}

#define MULTIPLY_INSTANCE(tiles) \
    static void multiply_##tiles(ptrdiff_t num_channels, ptrdiff_t num_kernels, \
                                 const real *values, const real *kernels, real *sums, \
                                 int accumulate) \
    { \
        ptrdiff_t k = 0; \
        for (; num_kernels - k > (PRODUCT_VECTORS - 1) * LANES; k += PRODUCT_VECTORS * LANES) \
            multiply(tiles, PRODUCT_VECTORS, num_channels, values, kernels + k, sums + k, \
                     accumulate); \
        if (k < num_kernels) \
            multiply(tiles, 1, num_channels, values, kernels + k, sums + k, accumulate); \
    }
#define MULTIPLY_ENTRY(tiles) [tiles] = multiply_##tiles,

FOR_PRODUCT_TILES(MULTIPLY_INSTANCE)

static void winograd_products(ptrdiff_t num_tiles, ptrdiff_t num_channels, ptrdiff_t num_kernels,
                              const void *values_, ptrdiff_t values_stride, const void *kernels_,
                              ptrdiff_t kernels_stride, void *sums_, ptrdiff_t sums_stride,
                              int accumulate)
{
    static void (*const multiply_of[])(ptrdiff_t, ptrdiff_t, const real *, const real *, real *,
                                       int) = {FOR_PRODUCT_TILES(MULTIPLY_ENTRY)};
    const real *values = values_, *kernels = kernels_;
    real *sums = sums_;
    const ptrdiff_t parts = (num_tiles + PRODUCT_TILES - 1) / PRODUCT_TILES;
    for (int i = 0; i < POINTS * POINTS; i++) {
        for (ptrdiff_t p = 0; p < parts; p++) {
            const ptrdiff_t begin = p * num_tiles / parts, end = (p + 1) * num_tiles / parts;
            multiply_of[end - begin](num_channels, num_kernels, values + begin * CHANNELS, kernels,
                                     sums + begin * WIDTH, accumulate);
        }
        values += values_stride;
        kernels += kernels_stride;
        sums += sums_stride;
    }
}

CONVEXT_INLINE void interpolate(const vec sum[POINTS], vec result[TILE])
{
    const vec even_a = sum[2] + sum[3], odd_a = sum[2] - sum[3];
    const vec even_b = sum[4] + sum[5], odd_b = sum[4] - sum[5];
    result[0] = sum[0] + (even_a + even_b);
    result[1] = (real)POINT_A * odd_a + (real)POINT_B * odd_b;
    result[2] = (real)SQUARE_A * even_a + (real)SQUARE_B * even_b;
    result[3] = (real)(SQUARE_A * POINT_A) * odd_a
                + ((real)(SQUARE_B * POINT_B) * odd_b + sum[1]);
}

/* The results of one tile that lie in the image, `rows` x `columns` of them. */
CONVEXT_INLINE void transform_sums(const real *sums, ptrdiff_t sums_stride, vec bias,
                                   ptrdiff_t rows, ptrdiff_t columns, real *to,
                                   ptrdiff_t row_stride)
{
    vec column[POINTS][TILE];
    UNROLL(6)
    for (int j = 0; j < POINTS; j++) {
        vec sum[POINTS];
        UNROLL(6)
        for (int i = 0; i < POINTS; i++)
            sum[i] = load(sums + (i * POINTS + j) * sums_stride);
        interpolate(sum, column[j]);
    }
    UNROLL(4)
    for (int r = 0; r < TILE; r++) {
        vec result[TILE];
        const vec row[POINTS] = {column[0][r], column[1][r], column[2][r],
                                 column[3][r], column[4][r], column[5][r]};
        if (r == rows)
            return;
        interpolate(row, result);
        UNROLL(4)
        for (int c = 0; c < TILE; c++) {
            if (c == columns)
                break;
            store(to + r * row_stride + c * WIDTH, result[c] + bias);
        }
    }
}

static void winograd_results(ptrdiff_t num_kernels, const void *sums_, ptrdiff_t sums_stride,
                             const void *bias_, ptrdiff_t num_rows, ptrdiff_t num_columns,
                             void *to_)
{
    const real *sums = sums_, *bias = bias_;
    real *to = to_;
    for (ptrdiff_t x = 0; x < num_columns; x += TILE)
        for (ptrdiff_t k = 0; k < num_kernels; k += LANES)
            transform_sums(sums + x / TILE * WIDTH + k, sums_stride, load(bias + k), num_rows,
                           num_columns - x, to + x * WIDTH + k, num_columns * WIDTH);
}

#endif
