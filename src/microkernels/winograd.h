/* The transforms of Winograd's convolutions F(4x4, 3x3) and F(2x2, 5x5), on vectors of channels or of
 * kernels: correlating 6x6 pixels with 3x3 taps to 4x4 results, or with 5x5 taps to 2x2, is
 * evaluating both as polynomials at six points along each axis, multiplying 36 values, and
 * interpolating.
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

enum { CHANNELS = CONVEXT_WINOGRAD_CHANNELS, POINTS = CONVEXT_WINOGRAD_POINTS };
enum { AT_INFINITY = CONVEXT_WINOGRAD_AT_INFINITY, AT_A = CONVEXT_WINOGRAD_AT_A };
enum { LINE_TILE = CONVEXT_WINOGRAD_PHASE_TILE, MAX_TAPS = 5, MAX_TILE = 4 };

/* Sums of PRODUCT_TILES tiles and PRODUCT_VECTORS vectors of kernels fit the registers, in two
 * chains that take turns at the channels of a run, RUN of them. Short runs round less, but then
 * there must be room for the sums of those before; more vectors need fewer loads. */
#if CONVEXT_REGISTERS >= 32
enum { RUN = 8, PRODUCT_TILES = 7, PRODUCT_VECTORS = 1 };
#define FOR_PRODUCT_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#else
enum { RUN = 16, PRODUCT_TILES = 3, PRODUCT_VECTORS = 2 };
#define FOR_PRODUCT_TILES(X) X(1) X(2) X(3)
#endif
enum { WIDTH = 2 * LANES };

/* The values of a polynomial at a point and at its negative. */
CONVEXT_INLINE void evaluate_pair(const int taps, const vec tap[MAX_TAPS], real point, real square,
                                  vec value[2])
{
    vec even = tap[0], odd = tap[1];
    if (taps == 3)
        even += square * tap[2];
    if (taps == 5) {
        even += square * (tap[2] + square * tap[4]);
        odd += square * tap[3];
    }
    value[0] = even + point * odd;
    value[1] = even - point * odd;
}

/* The values of a polynomial of `taps` taps, without the factors of `kernel_factor`. That at
 * infinity belongs to the highest power that a tile leaves room for: of two taps it is zero. */
CONVEXT_INLINE void evaluate_taps(const int taps, const vec tap[MAX_TAPS], vec value[POINTS])
{
    value[0] = tap[0];
    value[AT_INFINITY] = taps == 2 ? (vec){0} : tap[taps - 1];
    evaluate_pair(taps, tap, POINT_A, SQUARE_A, value + AT_A);
    evaluate_pair(taps, tap, POINT_B, SQUARE_B, value + AT_A + 2);
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

CONVEXT_INLINE void transform_kernel(const int taps, const real *from, ptrdiff_t tap_stride,
                                     real *to, ptrdiff_t to_stride)
{
    vec columns[MAX_TAPS][POINTS], values[POINTS];
    UNROLL(5)
    for (int j = 0; j < taps; j++) {
        vec column[MAX_TAPS];
        UNROLL(5)
        for (int i = 0; i < taps; i++)
            column[i] = load(from + (i * taps + j) * tap_stride);
        evaluate_taps(taps, column, columns[j]);
    }
    UNROLL(6)
    for (int i = 0; i < POINTS; i++) {
        vec row[MAX_TAPS];
        UNROLL(5)
        for (int j = 0; j < taps; j++)
            row[j] = columns[j][i];
        evaluate_taps(taps, row, values);
        UNROLL(6)
        for (int j = 0; j < POINTS; j++)
            store(to + (i * POINTS + j) * to_stride,
                  values[j] * (real)(kernel_factor[i] * kernel_factor[j]));
    }
}

CONVEXT_INLINE void transform_kernels(const int taps, ptrdiff_t num_channels,
                                      ptrdiff_t num_kernels, const real *from,
                                      ptrdiff_t tap_stride, real *to, ptrdiff_t to_stride)
{
    for (ptrdiff_t c = 0; c < num_channels; c++)
        for (ptrdiff_t k = 0; k < num_kernels; k += LANES)
            transform_kernel(taps, from + c * taps * taps * WIDTH + k, tap_stride,
                             to + c * WIDTH + k, to_stride);
}

static void winograd_kernels(int taps, ptrdiff_t num_channels, ptrdiff_t num_kernels,
                             const void *from, ptrdiff_t tap_stride, void *to, ptrdiff_t to_stride)
{
    if (taps == 3)
        transform_kernels(3, num_channels, num_kernels, from, tap_stride, to, to_stride);
    else
        transform_kernels(5, num_channels, num_kernels, from, tap_stride, to, to_stride);
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

/* One pair of rows of a column of six pixels. */
CONVEXT_INLINE void transform_column(const int pair, const real *pixels, ptrdiff_t row_stride,
                                     const int column, vec row[2][POINTS])
{
    vec pixel[POINTS], value[2];
    UNROLL(6)
    for (int i = 0; i < POINTS; i++)
        pixel[i] = load(pixels + i * row_stride);
    transform_pixels(pair, pixel, value);
    row[0][column] = value[0];
    row[1][column] = value[1];
}

/* One pair of rows of the transforms of neighbouring tiles. In registers: these rows of the six
 * columns of a tile, all but `tile` of which are the next tile's, too. */
CONVEXT_INLINE void transform_row_pair(const int tile, const int pair, ptrdiff_t num_tiles,
                                       const real *panel, ptrdiff_t row_stride, real *to,
                                       ptrdiff_t to_stride)
{
    vec row[2][POINTS];
    UNROLL(6)
    for (int j = 0; j < POINTS - tile; j++)
        transform_column(pair, panel + j * CHANNELS, row_stride, j + tile, row);
    for (ptrdiff_t t = 0; t < num_tiles; t++) {
        UNROLL(6)
        for (int j = 0; j < POINTS - tile; j++) {
            row[0][j] = row[0][j + tile];
            row[1][j] = row[1][j + tile];
        }
        UNROLL(6)
        for (int j = POINTS - tile; j < POINTS; j++)
            transform_column(pair, panel + (t * tile + j) * CHANNELS, row_stride, j, row);
        UNROLL(2)
        for (int i = 0; i < 2; i++)
            UNROLL(3)
            for (int p = 0; p < POINTS / 2; p++) {
                vec value[2];
                transform_pixels(p, row[i], value);
                store(to + (i * POINTS + 2 * p) * to_stride + t * CHANNELS, value[0]);
                store(to + (i * POINTS + 2 * p + 1) * to_stride + t * CHANNELS, value[1]);
            }
    }
}

CONVEXT_INLINE void transform_row(const int tile, ptrdiff_t num_tiles, ptrdiff_t num_channels,
                                  const real *panel, ptrdiff_t row_stride, real *to,
                                  ptrdiff_t to_stride)
{
    for (ptrdiff_t c = 0; c < num_channels; c += LANES)
        UNROLL(3)
        for (int pair = 0; pair < POINTS / 2; pair++)
            transform_row_pair(tile, pair, num_tiles, panel + c, row_stride,
                               to + c + 2 * pair * POINTS * to_stride, to_stride);
}

static void winograd_pixels(int tile, ptrdiff_t num_tiles, ptrdiff_t num_channels,
                            const void *panel, ptrdiff_t row_stride, void *to, ptrdiff_t to_stride)
{
    if (tile == 4)
        transform_row(4, num_tiles, num_channels, panel, row_stride, to, to_stride);
    else
        transform_row(2, num_tiles, num_channels, panel, row_stride, to, to_stride);
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

typedef vec product_sums[PRODUCT_TILES][PRODUCT_VECTORS];

/* sum = left + right, which may be the same. */
CONVEXT_INLINE void add_sums(const int tiles, const int vectors, product_sums left,
                             product_sums right, product_sums sum)
{
    UNROLL(7)
    for (int t = 0; t < tiles; t++)
        UNROLL(2)
        for (int v = 0; v < vectors; v++)
            sum[t][v] = left[t][v] + right[t][v];
}

/* The sum over a run of channels, of which the last one may be short. */
CONVEXT_INLINE void add_run(const int tiles, const int vectors, ptrdiff_t num_channels,
                            const real *values, const real *kernels, product_sums sum)
{
    product_sums chain[2];
    UNROLL(2)
    for (int i = 0; i < 2; i++)
        UNROLL(7)
        for (int t = 0; t < tiles; t++)
            UNROLL(2)
            for (int v = 0; v < vectors; v++)
                chain[i][t][v] = (vec){0};
    const ptrdiff_t channels = num_channels < RUN ? num_channels : RUN;
    ptrdiff_t c = 0;
    for (; c + 2 <= channels; c += 2)
        UNROLL(2)
        for (int i = 0; i < 2; i++)
            add_channel(tiles, vectors, values + c + i, kernels + (c + i) * WIDTH, chain[i]);
    if (c < channels)
        add_channel(tiles, vectors, values + c, kernels + c * WIDTH, chain[0]);
    add_sums(tiles, vectors, chain[0], chain[1], sum);
}

/* The sum over two runs of channels. */
CONVEXT_INLINE void add_pair(const int tiles, const int vectors, ptrdiff_t num_channels,
                             const real *values, const real *kernels, product_sums sum)
{
    product_sums second;
    add_run(tiles, vectors, num_channels, values, kernels, sum);
    if (num_channels <= RUN)
        return;
    add_run(tiles, vectors, num_channels - RUN, values + RUN, kernels + RUN * WIDTH, second);
    add_sums(tiles, vectors, sum, second, sum);
}

/* The sum over two pairs of runs or, of long ones, over a pair. */
CONVEXT_INLINE void add_pairs(const int tiles, const int vectors, ptrdiff_t num_channels,
                              const real *values, const real *kernels, product_sums sum)
{
    const ptrdiff_t pair = 2 * RUN;
    product_sums second;
    add_pair(tiles, vectors, num_channels, values, kernels, sum);
    if (pair >= CHANNELS || num_channels <= pair)
        return;
    add_pair(tiles, vectors, num_channels - pair, values + pair, kernels + pair * WIDTH, second);
    add_sums(tiles, vectors, sum, second, sum);
}

/* Add to the sums so far, and what is lost by rounding to `errors`: Knuth's TwoSum. The last sums get
 * the errors back. */
CONVEXT_INLINE void add_exactly(const int tiles, const int vectors, const int last,
                                product_sums added, real *sums, real *errors)
{
    UNROLL(7)
    for (int t = 0; t < tiles; t++)
        UNROLL(2)
        for (int v = 0; v < vectors; v++) {
            const ptrdiff_t at = t * WIDTH + v * LANES;
            const vec before = load(sums + at);
            const vec sum = before + added[t][v];
            const vec rounded = sum - before;
            const vec error = load(errors + at)
                              + ((before - (sum - rounded)) + (added[t][v] - rounded));
            store(sums + at, last ? sum + error : sum);
            if (!last)
                store(errors + at, error);
        }
}

CONVEXT_INLINE void begin_sums(const int tiles, const int vectors, product_sums first, real *sums,
                               real *errors)
{
    UNROLL(7)
    for (int t = 0; t < tiles; t++)
        UNROLL(2)
        for (int v = 0; v < vectors; v++) {
            store(sums + t * WIDTH + v * LANES, first[t][v]);
            store(errors + t * WIDTH + v * LANES, (vec){0});
        }
}

/* In registers: tiles x vectors sums of a run of channels, and of those before. From L1: the values
 * of these tiles and the sums so far. Streams: the kernels. (Without the loop, which takes one turn,
 * GCC's code took 4 % longer.) */
CONVEXT_INLINE void multiply(const int tiles, const int vectors, ptrdiff_t num_channels,
                             const real *values, const real *kernels, real *sums, real *errors,
                             int first, int last)
{
    for (ptrdiff_t c = 0; c < num_channels; c += 4 * RUN) {
        product_sums sum;
        add_pairs(tiles, vectors, num_channels - c, values + c, kernels + c * WIDTH, sum);
        if (first && c == 0)
            begin_sums(tiles, vectors, sum, sums, errors);
        else if (last && c + 4 * RUN >= num_channels)
            add_exactly(tiles, vectors, 1, sum, sums, errors);
        else
            add_exactly(tiles, vectors, 0, sum, sums, errors);
    }
}

#define MULTIPLY_INSTANCE(tiles) \
    static void multiply_##tiles(ptrdiff_t num_channels, ptrdiff_t num_kernels, \
                                 const real *values, const real *kernels, real *sums, \
                                 real *errors, int first, int last) \
    { \
        ptrdiff_t k = 0; \
        for (; num_kernels - k > (PRODUCT_VECTORS - 1) * LANES; k += PRODUCT_VECTORS * LANES) \
            multiply(tiles, PRODUCT_VECTORS, num_channels, values, kernels + k, sums + k, \
                     errors + k, first, last); \
        if (k < num_kernels) \
            multiply(tiles, 1, num_channels, values, kernels + k, sums + k, errors + k, \
                     first, last); \
    }
#define MULTIPLY_ENTRY(tiles) [tiles] = multiply_##tiles,

FOR_PRODUCT_TILES(MULTIPLY_INSTANCE)

static void winograd_products(ptrdiff_t num_tiles, ptrdiff_t num_channels, ptrdiff_t num_kernels,
                              const void *values_, const void *kernels, void *sums_, void *errors_,
                              int first, int last)
{
    static void (*const multiply_of[])(ptrdiff_t, ptrdiff_t, const real *, const real *, real *,
                                       real *, int, int) = {FOR_PRODUCT_TILES(MULTIPLY_ENTRY)};
    const real *values = values_;
    real *sums = sums_, *errors = errors_;
    const ptrdiff_t parts = (num_tiles + PRODUCT_TILES - 1) / PRODUCT_TILES;
    for (ptrdiff_t p = 0; p < parts; p++) {
        const ptrdiff_t begin = p * num_tiles / parts, end = (p + 1) * num_tiles / parts;
        multiply_of[end - begin](num_channels, num_kernels, values + begin * CHANNELS, kernels,
                                 sums + begin * WIDTH, errors + begin * WIDTH, first, last);
    }
}

CONVEXT_INLINE void interpolate(const int tile, const vec sum[POINTS], vec result[MAX_TILE])
{
    const vec even_a = sum[2] + sum[3], odd_a = sum[2] - sum[3];
    const vec even_b = sum[4] + sum[5], odd_b = sum[4] - sum[5];
    result[0] = sum[0] + (even_a + even_b);
    if (tile == 2) {
        result[1] = (real)POINT_A * odd_a + ((real)POINT_B * odd_b + sum[1]);
        return;
    }
    result[1] = (real)POINT_A * odd_a + (real)POINT_B * odd_b;
    result[2] = (real)SQUARE_A * even_a + (real)SQUARE_B * even_b;
    result[3] = (real)(SQUARE_A * POINT_A) * odd_a
                + ((real)(SQUARE_B * POINT_B) * odd_b + sum[1]);
}

/* The results of one tile that lie in the image, `rows` x `columns` of them. */
CONVEXT_INLINE void transform_sums(const int tile, const real *sums, ptrdiff_t sums_stride,
                                   vec bias, ptrdiff_t rows, ptrdiff_t columns, real *to,
                                   ptrdiff_t row_stride)
{
    vec column[POINTS][MAX_TILE];
    UNROLL(6)
    for (int j = 0; j < POINTS; j++) {
        vec sum[POINTS];
        UNROLL(6)
        for (int i = 0; i < POINTS; i++)
            sum[i] = load(sums + (i * POINTS + j) * sums_stride);
        interpolate(tile, sum, column[j]);
    }
    UNROLL(4)
    for (int r = 0; r < tile; r++) {
        vec result[MAX_TILE];
        const vec row[POINTS] = {column[0][r], column[1][r], column[2][r],
                                 column[3][r], column[4][r], column[5][r]};
        if (r == rows)
            return;
        interpolate(tile, row, result);
        UNROLL(4)
        for (int c = 0; c < tile; c++) {
            if (c == columns)
                break;
            store(to + r * row_stride + c * WIDTH, result[c] + bias);
        }
    }
}

CONVEXT_INLINE void transform_row_of_sums(const int tile, ptrdiff_t num_kernels, const real *sums,
                                          ptrdiff_t sums_stride, const real *bias,
                                          ptrdiff_t num_rows, ptrdiff_t num_columns, real *to,
                                          ptrdiff_t row_stride)
{
    for (ptrdiff_t x = 0; x < num_columns; x += tile)
        for (ptrdiff_t k = 0; k < num_kernels; k += LANES)
            transform_sums(tile, sums + x / tile * WIDTH + k, sums_stride, load(bias + k),
                           num_rows, num_columns - x, to + x * WIDTH + k, row_stride);
}

static void winograd_results(int tile, ptrdiff_t num_kernels, const void *sums,
                             ptrdiff_t sums_stride, const void *bias, ptrdiff_t num_rows,
                             ptrdiff_t num_columns, void *to, ptrdiff_t row_stride)
{
    if (tile == 4)
        transform_row_of_sums(4, num_kernels, sums, sums_stride, bias, num_rows, num_columns, to,
                              row_stride);
    else
        transform_row_of_sums(2, num_kernels, sums, sums_stride, bias, num_rows, num_columns, to,
                              row_stride);
}

#endif
