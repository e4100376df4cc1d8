/* Sums of squares, by which data are judged before they are transformed: how far the pixels under a
 * window lie below those of the tile around it, whose rounding errors they share. */
#ifndef CONVEXT_SQUARES_H
#define CONVEXT_SQUARES_H

#include "microkernel.h"
#include "simd.h"

/* Sums of so many vectors of elements are in registers: the chains of additions take turns. */
enum { SQUARE_VECTORS = 4 };

/* A vector of elements, of which the first `count` matter, no others being read at or beyond `end`. */
CONVEXT_INLINE vec load_elements(ptrdiff_t count, const real *from, ptrdiff_t step, const real *end)
{
    vec value = {0};
    if (step == 1 && from + LANES <= end)
        return load(from);
    for (ptrdiff_t i = 0; i < count && i < LANES; i++)
        value[i] = from[i * step];
    return value;
}

/* Each element has its rows added in order, however they lie. */
CONVEXT_INLINE void add_squares_of(const int vectors, ptrdiff_t count, ptrdiff_t num_rows,
                                   const real *from, ptrdiff_t row_stride, ptrdiff_t step,
                                   const real *end, real *to)
{
    vec sum[SQUARE_VECTORS];
    ptrdiff_t r = 0;
    UNROLL(4)
    for (int v = 0; v < vectors; v++)
        sum[v] = load_elements(count - v * LANES, to + v * LANES, 1, to + count);
    if (step == 1)
        for (; r < num_rows && from + vectors * LANES <= end; r++, from += row_stride)
            UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                const vec value = load_once(from + v * LANES);
                sum[v] += value * value;
            }
    for (; r < num_rows; r++, from += row_stride)
        UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            const vec value =
                load_elements(count - v * LANES, from + v * LANES * step, step, end);
            sum[v] += value * value;
        }
    UNROLL(4)
    for (int v = 0; v < vectors; v++, count -= LANES)
        if (count >= LANES)
            store(to + v * LANES, sum[v]);
        else
            copy_part(count, (const real *)&sum[v], to + v * LANES);
}

static void add_squares(ptrdiff_t count, ptrdiff_t num_rows, const void *from_,
                        ptrdiff_t row_stride, ptrdiff_t step, void *to_)
{
    const real *from = from_;
    real *to = to_;
    /* Other rows lie behind the elements of a row. */
    const real *end = row_stride >= count ? from + (num_rows - 1) * row_stride + count : from;
    for (ptrdiff_t i = 0; i < count; i += SQUARE_VECTORS * LANES) {
        const ptrdiff_t rest = count - i;
        if (rest > 3 * LANES)
            add_squares_of(4, rest, num_rows, from + i * step, row_stride, step, end, to + i);
        else if (rest > LANES)
            add_squares_of(3, rest, num_rows, from + i * step, row_stride, step, end, to + i);
        else
            add_squares_of(1, rest, num_rows, from + i * step, row_stride, step, end, to + i);
    }
}

/* All bits of a lane where a tile and its windows are not within the limits. */
CONVEXT_INLINE mask beyond_limits(const convext_limits *limits, vec tile, vec least_window)
{
    return ~((tile <= (real)limits->ratio * least_window) & (tile <= (real)limits->most));
}

CONVEXT_INLINE int any_lane(mask lanes)
{
    int any = 0;
    for (int i = 0; i < LANES; i++)
        any |= lanes[i] != 0;
    return any;
}

CONVEXT_INLINE vec smaller(vec a, vec b)
{
    const mask less = a < b;
    return (vec)((less & (mask)a) | (~less & (mask)b));
}

/* Sums of `count` neighbours, elements that lie `stride` apart. */
CONVEXT_INLINE vec sum_of(const ptrdiff_t count, const real *from, ptrdiff_t stride)
{
    vec sum = load(from);
    UNROLL(6)
    for (ptrdiff_t i = 1; i < count; i++)
        sum += load(from + i * stride);
    return sum;
}

/* A window is judged by the least of each of its columns, over all windows of a tile and a column:
 * never too well. */
CONVEXT_INLINE int judge(const convext_tile tile, const convext_limits *limits,
                         const ptrdiff_t num_rows, ptrdiff_t num_columns, ptrdiff_t num_tiles,
                         const real *squares, ptrdiff_t pitch, real *scratch)
{
    real *columns = scratch, *least = columns + pitch, *windows = least + pitch;
    const ptrdiff_t pixels = num_tiles + tile.width - 1;
    mask bad = (vec){0} != (vec){0}, small = bad;
    for (ptrdiff_t x = 0; x < pixels; x += LANES) {
        vec window = sum_of(tile.window_height, squares + x, pitch);
        UNROLL(3)
        for (ptrdiff_t y = 1; y < num_rows; y++)
            window = smaller(sum_of(tile.window_height, squares + y * pitch + x, pitch), window);
        store(least + x, window);
        store(columns + x, sum_of(tile.height, squares + x, pitch));
    }
    for (ptrdiff_t x = 0; x < num_columns; x += LANES)
        store(windows + x, sum_of(tile.window_width, least + x, 1));
    /* What lies beyond is within the limits. */
    for (ptrdiff_t x = pixels; x < pixels + tile.width + LANES; x++)
        columns[x] = (real)limits->least;
    for (ptrdiff_t x = num_columns; x < num_tiles + tile.windows + LANES; x++)
        windows[x] = (real)limits->most;
    for (ptrdiff_t x = 0; x < num_tiles; x += LANES) {
        const vec sum = sum_of(tile.width, columns + x, 1);
        vec window = load(windows + x);
        UNROLL(3)
        for (ptrdiff_t i = 1; i < tile.windows; i++)
            window = smaller(load(windows + x + i), window);
        bad |= beyond_limits(limits, sum, window);
        small |= sum < (real)limits->least;
    }
    return any_lane(bad) ? CONVEXT_UNEVEN : any_lane(small) ? CONVEXT_SMALL : CONVEXT_EVEN;
}

static int uneven(const convext_tile *tile, const convext_limits *limits, ptrdiff_t num_rows,
                  ptrdiff_t num_columns, ptrdiff_t num_tiles, const void *squares,
                  ptrdiff_t pitch, void *scratch)
{
    const convext_tile usual = {6, 6, 3, 3, 4};
    if (num_rows == 4 && tile->height == 6 && tile->width == 6 && tile->window_height == 3
        && tile->window_width == 3)
        return judge(usual, limits, 4, num_columns, num_tiles, squares, pitch, scratch);
    return judge(*tile, limits, num_rows, num_columns, num_tiles, squares, pitch, scratch);
}

CONVEXT_INLINE vec larger(vec a, vec b)
{
    return -smaller(-a, -b);
}

static double add_up(ptrdiff_t num_rows, ptrdiff_t num_columns, const void *squares_,
                     ptrdiff_t pitch, double *most)
{
    vec sum = {0}, largest = {0};
    double total = 0;
    for (ptrdiff_t y = 0; y < num_rows; y++) {
        const real *row = (const real *)squares_ + y * pitch;
        ptrdiff_t x = 0;
        for (; x + LANES <= num_columns; x += LANES) {
            sum += load(row + x);
            largest = larger(load(row + x), largest);
        }
        for (; x < num_columns; x++) {
            total += row[x];
            *most = row[x] > *most ? row[x] : *most;
        }
    }
    for (int i = 0; i < LANES; i++) {
        total += sum[i];
        *most = largest[i] > *most ? largest[i] : *most;
    }
    return total;
}

static double least_window(ptrdiff_t num_rows, ptrdiff_t num_windows, ptrdiff_t width,
                           const void *squares_, ptrdiff_t pitch)
{
    const real *squares = squares_;
    double least = sizeof(real) == sizeof(float) ? 1e38 : 1e300;
    vec smallest = splat((real)least);
    for (ptrdiff_t y = 0; y < num_rows; y++, squares += pitch) {
        for (ptrdiff_t x = 0; x < num_windows && num_windows >= LANES; x += LANES) {
            const ptrdiff_t begin = x + LANES <= num_windows ? x : num_windows - LANES;
            smallest = smaller(sum_of(width, squares + begin, 1), smallest);
        }
        for (ptrdiff_t x = 0; x < num_windows && num_windows < LANES; x++) {
            real window = 0;
            for (ptrdiff_t i = 0; i < width; i++)
                window += squares[x + i];
            least = window < least ? window : least;
        }
    }
    for (int i = 0; i < LANES; i++)
        least = smallest[i] < least ? smallest[i] : least;
    return least;
}

#endif
