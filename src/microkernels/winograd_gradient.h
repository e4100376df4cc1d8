/* The transforms of Winograd's gradient of 3x3 kernels, on vectors of kernels or of channels: the
 * same six points as winograd.h, with 4x4 output gradients in the place of the taps, and nine taps
 * in that of the results; see docs/winograd.md. */
#ifndef CONVEXT_WINOGRAD_GRADIENT_H
#define CONVEXT_WINOGRAD_GRADIENT_H

#include "winograd.h"

/* Output gradients of a tile, and taps, along an axis. */
enum { TILE = 4, TAPS = 3 };

/* The values of a polynomial of four output gradients. */
CONVEXT_INLINE void evaluate_gradients(const vec gradient[TILE], vec value[POINTS])
{
    const vec even_a = gradient[0] + (real)SQUARE_A * gradient[2];
    const vec even_b = gradient[0] + (real)SQUARE_B * gradient[2];
    const vec odd_a = gradient[1] + (real)SQUARE_A * gradient[3];
    const vec odd_b = gradient[1] + (real)SQUARE_B * gradient[3];
    value[0] = gradient[0];
    value[1] = gradient[3];
    value[2] = even_a + (real)POINT_A * odd_a;
    value[3] = even_a - (real)POINT_A * odd_a;
    value[4] = even_b + (real)POINT_B * odd_b;
    value[5] = even_b - (real)POINT_B * odd_b;
}

static void winograd_gradients(ptrdiff_t num_tiles, ptrdiff_t num_kernels, const void *panel_,
                               ptrdiff_t row_stride, void *to_, ptrdiff_t to_stride)
{
    for (ptrdiff_t k = 0; k < num_kernels; k += LANES)
        for (ptrdiff_t tile = 0; tile < num_tiles; tile++) {
            const real *panel = (const real *)panel_ + tile * TILE * CHANNELS + k;
            real *to = (real *)to_ + tile * CHANNELS + k;
            vec columns[TILE][POINTS];
            UNROLL(4)
            for (int j = 0; j < TILE; j++) {
                vec column[TILE];
                UNROLL(4)
                for (int i = 0; i < TILE; i++)
                    column[i] = load(panel + i * row_stride + j * CHANNELS);
                evaluate_gradients(column, columns[j]);
            }
            UNROLL(6)
            for (int i = 0; i < POINTS; i++) {
                const vec row[TILE] = {columns[0][i], columns[1][i], columns[2][i], columns[3][i]};
                vec values[POINTS];
                evaluate_gradients(row, values);
                UNROLL(6)
                for (int j = 0; j < POINTS; j++)
                    store(to + (i * POINTS + j) * to_stride, values[j]);
            }
        }
}

/* GRADIENT_CHAINS chains of sums, of GRADIENT_KERNELS kernels and GRADIENT_VECTORS vectors of
 * channels, fit the registers. More chains round less. */
#if CONVEXT_REGISTERS >= 32
enum { GRADIENT_CHAINS = 4, GRADIENT_KERNELS = 7, GRADIENT_VECTORS = 1 };
#define FOR_GRADIENT_KERNELS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#else
enum { GRADIENT_CHAINS = 2, GRADIENT_KERNELS = 3, GRADIENT_VECTORS = 2 };
#define FOR_GRADIENT_KERNELS(X) X(1) X(2) X(3)
#endif

/* Tiles that are added up one after the other, then their sums are. */
enum { GRADIENT_TILES = 32 };

CONVEXT_INLINE void add_tile(const int kernels, const int vectors, const real *gradients,
                             const real *pixels, vec sum[GRADIENT_KERNELS][GRADIENT_VECTORS])
{
    vec pixel[GRADIENT_VECTORS];
    UNROLL(2)
    for (int v = 0; v < vectors; v++)
        pixel[v] = load(pixels + v * LANES);
    UNROLL(7)
    for (int k = 0; k < kernels; k++) {
        const vec gradient = splat(gradients[k]);
        UNROLL(2)
        for (int v = 0; v < vectors; v++)
            sum[k][v] += gradient * pixel[v];
    }
}

/* In registers: kernels x vectors sums in chains, of the tiles in turns. From L1: what is streamed
 * from L2 for the first vectors, or kernels. */
CONVEXT_INLINE void sum_tiles(const int kernels, const int vectors, ptrdiff_t num_tiles,
                              const real *gradients, const real *pixels, real *sums,
                              int accumulate)
{
    vec chain[GRADIENT_CHAINS][GRADIENT_KERNELS][GRADIENT_VECTORS];
    ptrdiff_t t = 0;

    UNROLL(4)
    for (int i = 0; i < GRADIENT_CHAINS; i++)
        UNROLL(7)
        for (int k = 0; k < kernels; k++)
            UNROLL(2)
            for (int v = 0; v < vectors; v++)
                chain[i][k][v] = (vec){0};

    for (; t + GRADIENT_CHAINS <= num_tiles; t += GRADIENT_CHAINS)
        UNROLL(4)
        for (int i = 0; i < GRADIENT_CHAINS; i++)
            add_tile(kernels, vectors, gradients + (t + i) * CHANNELS, pixels + (t + i) * CHANNELS,
                     chain[i]);
    for (; t < num_tiles; t++)
        add_tile(kernels, vectors, gradients + t * CHANNELS, pixels + t * CHANNELS, chain[0]);

    UNROLL(7)
    for (int k = 0; k < kernels; k++)
        UNROLL(2)
        for (int v = 0; v < vectors; v++) {
            real *to = sums + k * CHANNELS + v * LANES;
            vec sum = chain[0][k][v] + chain[1][k][v];
            if (GRADIENT_CHAINS == 4)
                sum += chain[GRADIENT_CHAINS - 2][k][v] + chain[GRADIENT_CHAINS - 1][k][v];
            store(to, accumulate ? load(to) + sum : sum);
        }
}

#define SUM_TILES_INSTANCE(kernels) \
    static void sum_tiles_##kernels(ptrdiff_t num_tiles, ptrdiff_t num_channels, \
                                    const real *gradients, const real *pixels, real *sums, \
                                    int accumulate) \
    { \
        ptrdiff_t c = 0; \
        for (; num_channels - c > (GRADIENT_VECTORS - 1) * LANES; c += GRADIENT_VECTORS * LANES) \
            sum_tiles(kernels, GRADIENT_VECTORS, num_tiles, gradients, pixels + c, sums + c, \
                      accumulate); \
        if (c < num_channels) \
            sum_tiles(kernels, 1, num_tiles, gradients, pixels + c, sums + c, accumulate); \
    }
#define SUM_TILES_ENTRY(kernels) [kernels] = sum_tiles_##kernels,

FOR_GRADIENT_KERNELS(SUM_TILES_INSTANCE)

static void winograd_gradient_products(ptrdiff_t num_tiles, ptrdiff_t num_kernels,
                                       ptrdiff_t num_channels, const void *gradients_,
                                       const void *pixels_, ptrdiff_t stride, void *sums_,
                                       ptrdiff_t sums_stride)
{
    static void (*const sum_tiles_of[])(ptrdiff_t, ptrdiff_t, const real *, const real *, real *,
                                        int) = {FOR_GRADIENT_KERNELS(SUM_TILES_ENTRY)};
    const real *gradients = gradients_, *pixels = pixels_;
    real *sums = sums_;
    const ptrdiff_t parts = (num_kernels + GRADIENT_KERNELS - 1) / GRADIENT_KERNELS;
    for (int i = 0; i < POINTS * POINTS; i++) {
        for (ptrdiff_t t = 0; t < num_tiles; t += GRADIENT_TILES) {
            const ptrdiff_t tiles = num_tiles - t < GRADIENT_TILES ? num_tiles - t : GRADIENT_TILES;
            for (ptrdiff_t p = 0; p < parts; p++) {
                const ptrdiff_t k = p * num_kernels / parts, end = (p + 1) * num_kernels / parts;
                sum_tiles_of[end - k](tiles, num_channels, gradients + t * CHANNELS + k,
                                      pixels + t * CHANNELS, sums + k * CHANNELS, t > 0);
            }
        }
        gradients += stride;
        pixels += stride;
        sums += sums_stride;
    }
}

/* The transpose of evaluate_taps, of sums without the factors of `kernel_factor`. */
CONVEXT_INLINE void collect_taps(const vec sum[POINTS], vec tap[TAPS])
{
    const vec even_a = (real)kernel_factor[2] * (sum[2] + sum[3]);
    const vec even_b = (real)kernel_factor[4] * (sum[4] + sum[5]);
    tap[0] = (real)kernel_factor[0] * sum[0] + (even_a + even_b);
    tap[1] = (real)(POINT_A * kernel_factor[2]) * (sum[2] - sum[3])
             + (real)(POINT_B * kernel_factor[4]) * (sum[4] - sum[5]);
    tap[2] = (real)SQUARE_A * even_a + ((real)SQUARE_B * even_b + sum[1]);
}

static void winograd_taps(ptrdiff_t num_kernels, ptrdiff_t num_channels, const void *sums_,
                          ptrdiff_t sums_stride, void *to_, ptrdiff_t to_stride)
{
    for (ptrdiff_t k = 0; k < num_kernels; k++)
        for (ptrdiff_t c = 0; c < num_channels; c += LANES) {
            const real *sums = (const real *)sums_ + k * CHANNELS + c;
            real *to = (real *)to_ + k * CHANNELS + c;
            vec columns[POINTS][TAPS];
            UNROLL(6)
            for (int j = 0; j < POINTS; j++) {
                vec sum[POINTS];
                UNROLL(6)
                for (int i = 0; i < POINTS; i++)
                    sum[i] = load(sums + (i * POINTS + j) * sums_stride);
                collect_taps(sum, columns[j]);
            }
            UNROLL(3)
            for (int i = 0; i < TAPS; i++) {
                const vec row[POINTS] = {columns[0][i], columns[1][i], columns[2][i],
                                         columns[3][i], columns[4][i], columns[5][i]};
                vec tap[TAPS];
                collect_taps(row, tap);
                UNROLL(3)
                for (int j = 0; j < TAPS; j++)
                    store(to + (i * TAPS + j) * to_stride, tap[j]);
            }
        }
}

#endif
