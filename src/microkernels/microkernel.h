/* The contract between the loops in the Cython modules and the micro-kernels.
 *
 * There is one table of micro-kernels for each element type and instruction set, all compiled from
 * microkernel.c. Pointers are `void *` so that both element types share this header: they point to
 * elements of the table's type. No pointer needs more than the alignment of an element. */
#ifndef CONVEXT_MICROKERNEL_H
#define CONVEXT_MICROKERNEL_H

#include <stddef.h>

enum {
    CONVEXT_MAX_KERNELS = 14, /* the most kernels that one `correlate` computes at once */
    CONVEXT_MAX_SLIDE_ROWS = 4, /* the most rows that one `slide` computes at once */
    CONVEXT_MAX_ROWS = 4,     /* the most gradient rows that one `dot` takes at once */
    CONVEXT_MAX_DOT_TAPS = 24, /* the most taps that one `dot` takes at once */

    /* So many products are added up one after the other, then the sums of such blocks: a long sum
     * of equal numbers, each rounded the same way, would drift by more than its square root. */
    CONVEXT_BLOCK = 256,

    /* Winograd's convolution takes so many channels at a time. */
    CONVEXT_WINOGRAD_CHANNELS = 32
};

/* The building block, a product of two matrices whose rows may lie anywhere:
 *
 * sums[k * sums_stride + p] (+)= sum over t of weights[weight_offset[t] + k] * pixels[offset[t] + p]
 *
 * for every k < kernels and p < num_pixels, where num_pixels is a multiple of `lanes`. `kernels` is
 * the index in the table, 1 to max_kernels. The sum is added to what `sums` holds when
 * `accumulate` is not 0, else it replaces that. For each element the taps are added in blocks of
 * CONVEXT_BLOCK in the order of t, whatever the tile: its sum does not depend on its neighbours. */
typedef void convext_correlate(ptrdiff_t num_taps, ptrdiff_t num_pixels, const void *weights,
                               const ptrdiff_t *weight_offset, const void *pixels,
                               const ptrdiff_t *offset, void *sums, ptrdiff_t sums_stride,
                               int accumulate);

/* One kernel over several rows of outputs at once, so that each vector of pixels that is loaded
 * serves all rows under whose windows it lies:
 *
 * sums[r * sums_stride + p] (+)= sum over i < num_rows and j < num_columns of
 *     weights[i * num_columns + j] * pixels[(r + i) * pitch + offset[j] + p]
 *
 * for every r < rows and p < num_pixels, a multiple of `lanes`. `rows` is the index in the table, 1
 * to max_slide_rows, and no more than num_rows. The order of each sum is that of `correlate`, in
 * one block. */
typedef void convext_slide(ptrdiff_t num_rows, ptrdiff_t num_columns, ptrdiff_t num_pixels,
                           const void *weights, const void *pixels, ptrdiff_t pitch,
                           const ptrdiff_t *offset, void *sums, ptrdiff_t sums_stride,
                           int accumulate);

/* sums[r * taps + t] = sum over p of rows[r * row_stride + p] * pixels[offset[t] + p]
 *
 * for every r < rows and t < taps, over p < num_pixels, a multiple of `lanes`. `rows` and `taps`
 * are the indices in the table, 1 to max_rows and 1 to max_dot_taps[rows]. */
typedef void convext_dot(ptrdiff_t num_pixels, const void *rows, ptrdiff_t row_stride,
                         const void *pixels, const ptrdiff_t *offset, void *sums);

/* The residual of a prediction, in place, for every row r < num_rows and column c < num_columns:
 *
 * predicted[r * pitch + c] = (predicted[r * pitch + c] - target[r * target_pitch + c]) * scale
 *
 * and zeros from the last column to the pitch. Returns the sum of the squares of predicted -
 * target. */
typedef double convext_residual(ptrdiff_t num_rows, ptrdiff_t num_columns, void *predicted,
                                ptrdiff_t pitch, const void *target, ptrdiff_t target_pitch,
                                double scale);

/* to[i * to_stride + r] = from[r * row_stride + i * step] for every i < count and r < num_rows. The
 * elements between num_rows and to_stride may change, those after the last row stay. */
typedef void convext_interleave(ptrdiff_t count, ptrdiff_t num_rows, const void *from,
                                ptrdiff_t row_stride, ptrdiff_t step, void *to,
                                ptrdiff_t to_stride);

/* to[i] = from[i * step] for every i < count. */
typedef void convext_decimate(ptrdiff_t count, const void *from, ptrdiff_t step, void *to);

/* to[p * width + j] = pixels[p + offset[i] + j - start[i]] for every p < num_pixels, i < num_pieces
 * and start[i] <= j < start[i + 1], pieces of `lanes` elements at most. Goes through p and i in
 * order; up to a vector from start[i] on is read and written, which the next pieces overwrite. */
typedef void convext_unfold(ptrdiff_t num_pixels, ptrdiff_t num_pieces, const void *pixels,
                            const ptrdiff_t *offset, void *to, const ptrdiff_t *start,
                            ptrdiff_t width);

/* Winograd's convolution of 3x3 taps, in tiles of 4x4 results, or of 5x5 taps, in tiles of 2x2: 36
 * values of a kernel and of the 6x6 pixels under a tile, their products, summed over the channels,
 * and the results from these sums. `taps` and `tile` are the sizes along an axis.
 * Side by side lie CONVEXT_WINOGRAD_CHANNELS channels of a pixel, here 32, and `width` kernels of a
 * channel; the i-th value lies i * stride elements behind the first. Counts of kernels and of
 * channels are rounded up to whole vectors.
 *
 * Kernels: tap t of channel c of kernel k is from[c * taps * taps * width + t * tap_stride + k],
 * and its values go to to[c * width + k], ... */
typedef void convext_winograd_kernels(int taps, ptrdiff_t num_channels, ptrdiff_t num_kernels,
                                      const void *from, ptrdiff_t tap_stride, void *to,
                                      ptrdiff_t stride);

/* Pixels, of a row of tiles: pixel (y, x) of channel c is panel[y * row_stride + x * 32 + c], and
 * the values of a tile go to to[tile * 32 + c], ... */
typedef void convext_winograd_pixels(int tile, ptrdiff_t num_tiles, ptrdiff_t num_channels,
                                     const void *panel, ptrdiff_t row_stride, void *to,
                                     ptrdiff_t stride);

/* Products, for each of the 36 values:
 *
 * sums[tile * width + k] = sum over c of values[tile * 32 + c] * kernels[c * width + k]
 *
 * plus, unless these are the `first` channels, what is there. `errors` lies like `sums` and collects
 * what rounding loses where long sums are added, until the `last` channels add it, too. A sum does
 * not depend on its neighbours. */
typedef void convext_winograd_products(ptrdiff_t num_tiles, ptrdiff_t num_channels,
                                       ptrdiff_t num_kernels, const void *values,
                                       ptrdiff_t values_stride, const void *kernels,
                                       ptrdiff_t kernels_stride, void *sums, void *errors,
                                       ptrdiff_t sums_stride, int first, int last);

/* Results, of a row of tiles: from the sums of a tile, sums[tile * width + k], ..., for each kernel
 * k plus bias[k], to to[(y * num_columns + x) * width + k] for every y < num_rows (at most `tile`)
 * and x < num_columns. */
typedef void convext_winograd_results(int tile, ptrdiff_t num_kernels, const void *sums,
                                      ptrdiff_t stride, const void *bias, ptrdiff_t num_rows,
                                      ptrdiff_t num_columns, void *to);

typedef struct {
    int lanes;       /* elements in a vector */
    int max_kernels; /* correlate[1 .. max_kernels] exist */
    int correlate_vectors[CONVEXT_MAX_KERNELS + 1]; /* vectors of pixels that fit the registers */
    int max_rows;    /* dot[1 .. max_rows] exist */
    int max_dot_taps[CONVEXT_MAX_ROWS + 1]; /* dot[rows][1 .. max_dot_taps[rows]] exist */
    convext_correlate *correlate[CONVEXT_MAX_KERNELS + 1];
    int max_slide_rows; /* slide[1 .. max_slide_rows] exist */
    convext_slide *slide[CONVEXT_MAX_SLIDE_ROWS + 1];
    convext_dot *dot[CONVEXT_MAX_ROWS + 1][CONVEXT_MAX_DOT_TAPS + 1];
    convext_residual *residual;
    convext_interleave *interleave;
    convext_decimate *decimate;
    convext_unfold *unfold;
    int winograd_width; /* kernels that lie side by side */
    convext_winograd_kernels *winograd_kernels;
    convext_winograd_pixels *winograd_pixels;
    convext_winograd_products *winograd_products;
    convext_winograd_results *winograd_results;
} convext_microkernels;

#endif
