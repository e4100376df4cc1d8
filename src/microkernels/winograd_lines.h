/* The transforms of winograd.h along one axis, for kernels of which each phase has tiles of its own. */
#ifndef CONVEXT_WINOGRAD_LINES_H
#define CONVEXT_WINOGRAD_LINES_H

#include "winograd.h"

/* One axis of the same transforms, in tiles of four results: of three taps; of two, which have no
 * value at infinity; or of one, of which pixels and results are values themselves. */
CONVEXT_INLINE int line_points(const int taps)
{
    return taps + LINE_TILE - 1;
}

/* All six points, where those of a line begin with zero. */
CONVEXT_INLINE int point_of(const int taps, const int i)
{
    return taps == 2 && i > 0 ? i + 1 : i;
}

CONVEXT_INLINE void line_of_pixels(const int taps, const vec pixel[POINTS], vec value[POINTS])
{
    vec all[POINTS];
    UNROLL(3)
    for (int pair = 0; pair < POINTS / 2; pair++)
        transform_pixels(pair, pixel, all + 2 * pair);
    UNROLL(6)
    for (int i = 0; i < line_points(taps); i++)
        value[i] = all[point_of(taps, i)];
}

CONVEXT_INLINE void line_of_taps(const int taps, const vec tap[POINTS], vec value[POINTS])
{
    vec all[POINTS];
    evaluate_taps(taps, tap, all);
    UNROLL(6)
    for (int i = 0; i < line_points(taps); i++)
        value[i] = all[point_of(taps, i)] * (real)kernel_factor[point_of(taps, i)];
}

CONVEXT_INLINE void line_of_results(const int taps, const vec sum[POINTS], vec result[POINTS])
{
    vec all[POINTS];
    all[AT_INFINITY] = (vec){0};
    UNROLL(6)
    for (int i = 0; i < line_points(taps); i++)
        all[point_of(taps, i)] = sum[i];
    interpolate(LINE_TILE, all, result);
}

CONVEXT_INLINE void transform_lines(const int what, const int taps, ptrdiff_t num_lines,
                                    ptrdiff_t size, const real *from, ptrdiff_t from_step,
                                    ptrdiff_t from_stride, real *to, ptrdiff_t to_step,
                                    ptrdiff_t to_stride, int accumulate)
{
    const int points = line_points(taps);
    const int inputs = what == CONVEXT_WINOGRAD_TAPS ? taps : points;
    const int one_value = what == CONVEXT_WINOGRAD_TAPS && taps == 1;
    const int outputs = what == CONVEXT_WINOGRAD_RESULTS ? LINE_TILE : one_value ? 1 : points;
    for (ptrdiff_t n = 0; n < num_lines; n++)
        for (ptrdiff_t i = 0; i < size; i += LANES) {
            vec in[POINTS] = {{0}}, out[POINTS];
            UNROLL(6)
            for (int j = 0; j < inputs; j++)
                in[j] = load(from + n * from_step + j * from_stride + i);
            if (taps == 1)
                __builtin_memcpy(out, in, sizeof out);
            else if (what == CONVEXT_WINOGRAD_PIXELS)
                line_of_pixels(taps, in, out);
            else if (what == CONVEXT_WINOGRAD_TAPS)
                line_of_taps(taps, in, out);
            else
                line_of_results(taps, in, out);
            UNROLL(6)
            for (int j = 0; j < outputs; j++) {
                real *at = to + n * to_step + j * to_stride + i;
                store(at, accumulate ? load(at) + out[j] : out[j]);
            }
        }
}

#define TRANSFORM_LINES(what, taps) \
    transform_lines(what, taps, num_lines, size, from, from_step, from_stride, to, to_step, \
                    to_stride, what == CONVEXT_WINOGRAD_RESULTS && accumulate)
#define LINES_INSTANCE(name, what) \
    static void lines_of_##name(int taps, ptrdiff_t num_lines, ptrdiff_t size, const void *from, \
                                ptrdiff_t from_step, ptrdiff_t from_stride, void *to, \
                                ptrdiff_t to_step, ptrdiff_t to_stride, int accumulate) \
    { \
        if (taps == 1) \
            TRANSFORM_LINES(what, 1); \
        else if (taps == 2) \
            TRANSFORM_LINES(what, 2); \
        else \
            TRANSFORM_LINES(what, 3); \
    }

LINES_INSTANCE(pixels, CONVEXT_WINOGRAD_PIXELS)
LINES_INSTANCE(taps, CONVEXT_WINOGRAD_TAPS)
LINES_INSTANCE(results, CONVEXT_WINOGRAD_RESULTS)

static void winograd_lines(int what, int taps, ptrdiff_t num_lines, ptrdiff_t size,
                           const void *from, ptrdiff_t from_step, ptrdiff_t from_stride, void *to,
                           ptrdiff_t to_step, ptrdiff_t to_stride, int accumulate)
{
    static void (*const lines_of[])(int, ptrdiff_t, ptrdiff_t, const void *, ptrdiff_t, ptrdiff_t,
                                    void *, ptrdiff_t, ptrdiff_t, int) = {
        [CONVEXT_WINOGRAD_PIXELS] = lines_of_pixels,
        [CONVEXT_WINOGRAD_TAPS] = lines_of_taps,
        [CONVEXT_WINOGRAD_RESULTS] = lines_of_results,
    };
    lines_of[what](taps, num_lines, size, from, from_step, from_stride, to, to_step, to_stride,
                   accumulate);
}

#endif
