/* The table of micro-kernels that the loops in the Cython modules call.
 *
 * There is one for each element type and instruction set, all compiled from microkernel.c. What each
 * micro-kernel takes and does stands in contracts.h; here is what else both sides need to know. */
#ifndef CONVEXT_MICROKERNEL_H
#define CONVEXT_MICROKERNEL_H

#include <stddef.h>

enum {
    CONVEXT_MAX_KERNELS = 14, /* the most kernels that one `correlate` computes at once */
    CONVEXT_MAX_SLIDE_ROWS = 4, /* the most rows that one `slide` computes at once */
    CONVEXT_MAX_ROWS = 4,     /* the most gradient rows that one `dot` takes at once */
    CONVEXT_MAX_DOT_TAPS = 24, /* the most taps that one `dot` takes at once */

    /* Products that are added up one after the other; then the sums of such chains are: a long sum
     * of equal numbers, each rounded the same way, would drift by more than its square root. */
    CONVEXT_CHAIN = 256,

    /* Winograd's algorithm: channels that are taken at a time; pixels of a tile along an axis, which
     * are the points that polynomials are evaluated at, and values of a tile; results along an axis
     * that `winograd_lines` makes. Of the points, that at infinity counts in the last result of a
     * tile only; in the value at point a all taps count. */
    CONVEXT_WINOGRAD_CHANNELS = 32,
    CONVEXT_WINOGRAD_POINTS = 6,
    CONVEXT_WINOGRAD_VALUES = CONVEXT_WINOGRAD_POINTS * CONVEXT_WINOGRAD_POINTS,
    CONVEXT_WINOGRAD_PHASE_TILE = 4,
    CONVEXT_WINOGRAD_AT_INFINITY = 1,
    CONVEXT_WINOGRAD_AT_A = 2
};

/* For `uneven`: what it returns, a tile and its windows, and what their squares must keep to. */
enum { CONVEXT_EVEN, CONVEXT_SMALL, CONVEXT_UNEVEN };
typedef struct {
    ptrdiff_t height, width;
    ptrdiff_t window_height, window_width;
    ptrdiff_t windows; /* of a tile, along a row */
} convext_tile;
typedef struct {
    double ratio, most, least;
} convext_limits;

/* For `winograd_lines`: what is transformed. */
enum { CONVEXT_WINOGRAD_PIXELS, CONVEXT_WINOGRAD_TAPS, CONVEXT_WINOGRAD_RESULTS };

/* For the Fourier transforms: a tile's pixels, or results. It may have fewer rows, or none. */
typedef struct {
    void *data;
    ptrdiff_t pitch; /* elements from one row to the next */
    ptrdiff_t rows, columns;
} convext_fft_pixels;

/* Rows of a tile: `height` of them, `spread` apart, from `top` on; the first, the last and some
 * between, evenly, make `pairs` of neighbours, of which up to `group` are looked at together. */
typedef struct {
    ptrdiff_t top, height, spread;
    ptrdiff_t pairs, group;
} convext_fft_rows;

typedef struct {
    int lanes;       /* elements in a vector */
    int max_kernels; /* correlate[1 .. max_kernels] exist */
    int correlate_vectors[CONVEXT_MAX_KERNELS + 1]; /* vectors of pixels that fit the registers */
    int max_rows;    /* dot[1 .. max_rows] exist */
    int max_dot_taps[CONVEXT_MAX_ROWS + 1]; /* dot[rows][1 .. max_dot_taps[rows]] exist */
    int max_slide_rows; /* slide[1 .. max_slide_rows] exist */
    int winograd_width; /* kernels that lie side by side */
    const char *activations; /* their names, in the order of their numbers */
#define MICROKERNEL(result, name, parameters) result(*name) parameters;
#define MICROKERNELS(result, name, sizes, parameters) result(*name sizes) parameters;
#include "contracts.h"
#undef MICROKERNEL
#undef MICROKERNELS
} convext_microkernels;

#endif
