/* Sums of squares, by which data are judged before they are transformed: how far the pixels under a
 * window lie below those of the tile around it, whose rounding errors they share. */
#ifndef CONVEXT_SQUARES_H
#define CONVEXT_SQUARES_H

#include "microkernel.h"
#include "simd.h"

/* More than any sum of squares that is within limits. */
static const double MOST = sizeof(real) == sizeof(float) ? 1e38 : 1e300;

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

/* Each element has its rows added in order, however they lie. The last vector may overlap. */
CONVEXT_INLINE void add_line(ptrdiff_t count, ptrdiff_t num_rows, const real *from,
                             ptrdiff_t row_stride, ptrdiff_t step, real *to)
{
    /* Other rows lie behind the elements of a row. */
    const real *end = row_stride >= count ? from + (num_rows - 1) * row_stride + count : from;
    const ptrdiff_t elements = count < LANES ? count : LANES;
    const vec last = load_elements(elements, to + count - elements, 1, to + count);
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        const ptrdiff_t begin = i + LANES < count ? i : count - elements;
        const real *row = from + begin * step;
        vec sum = i + LANES < count ? load(to + begin) : last;
        if (step == 1 && elements == LANES)
            for (ptrdiff_t r = 0; r < num_rows; r++, row += row_stride) {
                const vec value = load_once(row);
                sum += value * value;
            }
        else
            for (ptrdiff_t r = 0; r < num_rows; r++, row += row_stride) {
                const vec value = load_elements(elements, row, step, end);
                sum += value * value;
            }
        if (elements == LANES)
            store(to + begin, sum);
        else
            copy_part(elements, (const real *)&sum, to);
    }
}

static void add_squares(ptrdiff_t num_lines, ptrdiff_t count, ptrdiff_t num_rows,
                        const void *from, ptrdiff_t stride, ptrdiff_t row_stride, ptrdiff_t step,
                        void *to, ptrdiff_t to_stride)
{
    for (ptrdiff_t j = 0; j < num_lines; j++)
        add_line(count, num_rows, (const real *)from + j * stride, row_stride, step,
                 (real *)to + j * to_stride);
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

/* The lesser one, `b` where one is not a number. */
CONVEXT_INLINE vec smaller(vec a, vec b)
{
#ifdef __AVX__
    /* The compiler makes two instructions of it, which take four times as long. */
    vec least;
    if (sizeof(real) == sizeof(float))
        __asm__("vminps %2, %1, %0" : "=v"(least) : "v"(a), "vm"(b));
    else
        __asm__("vminpd %2, %1, %0" : "=v"(least) : "v"(a), "vm"(b));
    return least;
#else
    const mask less = a < b;
    return (vec)((less & (mask)a) | (~less & (mask)b));
#endif
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

/* Along an axis of a tile, the pixels that `group` windows have in common, which follow each other: so
 * many cores, from `first` on. */
typedef struct {
    ptrdiff_t group, first, count, size;
} cores;

CONVEXT_INLINE cores cores_of(ptrdiff_t group, ptrdiff_t windows, ptrdiff_t size)
{
    return (cores){group, group - 1, (windows + group - 1) / group, size - group + 1};
}

/* A window has at least the squares of its core, and this the least that its columns have in any row of
 * cores. */
CONVEXT_INLINE int judge(const convext_tile tile, const cores down, const cores across,
                         const convext_limits *limits, ptrdiff_t num_columns, ptrdiff_t num_tiles,
                         const real *squares, ptrdiff_t pitch, real *scratch)
{
    real *columns = scratch, *least = columns + pitch, *windows = least + pitch;
    const ptrdiff_t pixels = num_tiles + tile.width - 1;
    /* What lies beyond is within the limits. */
    const ptrdiff_t judged = num_columns + across.group - 1;
    mask bad = (vec){0} != (vec){0}, small = bad;
    for (ptrdiff_t x = 0; x < pixels; x += LANES) {
        const real *core = squares + down.first * pitch + x;
        vec window = sum_of(down.size, core, pitch);
        UNROLL(3)
        for (ptrdiff_t i = 1; i < down.count; i++)
            window = smaller(sum_of(down.size, core + i * down.group * pitch, pitch), window);
        store(least + x, window);
        store(columns + x, sum_of(tile.height, squares + x, pitch));
    }
    for (ptrdiff_t x = pixels; x < pixels + tile.width + LANES; x += LANES)
        store(columns + x, splat((real)limits->least));
    for (ptrdiff_t x = 0; x < judged; x += LANES)
        store(windows + x, sum_of(across.size, least + x, 1));
    for (ptrdiff_t x = judged; x < num_tiles + tile.windows + LANES; x += LANES)
        store(windows + x, splat((real)limits->most));
    for (ptrdiff_t x = 0; x < num_tiles; x += LANES) {
        const vec sum = sum_of(tile.width, columns + x, 1);
        vec window = load(windows + x + across.first);
        UNROLL(3)
        for (ptrdiff_t i = 1; i < across.count; i++)
            window = smaller(load(windows + x + across.first + i * across.group), window);
        bad |= beyond_limits(limits, sum, window);
        small |= sum < (real)limits->least;
    }
    return any_lane(bad) ? CONVEXT_UNEVEN : any_lane(small) ? CONVEXT_SMALL : CONVEXT_EVEN;
}

/* How many windows may share a core that holds most of their pixels. */
CONVEXT_INLINE ptrdiff_t group_of(ptrdiff_t windows, ptrdiff_t size)
{
    return windows > 2 && size < 2 * windows ? 2 : windows;
}

static int uneven(const convext_tile *tile, const convext_limits *limits, ptrdiff_t num_rows,
                  ptrdiff_t num_columns, ptrdiff_t num_tiles, const void *squares,
                  ptrdiff_t pitch, void *scratch)
{
    const convext_tile usual = {6, 6, 3, 3, 4};
    const cores down = cores_of(group_of(num_rows, tile->window_height), num_rows,
                                tile->window_height);
    const cores across = cores_of(group_of(tile->windows, tile->window_width), tile->windows,
                                  tile->window_width);
    int verdict;
    if (num_rows == 4 && tile->height == 6 && tile->width == 6 && tile->window_height == 3
        && tile->window_width == 3)
        verdict = judge(usual, cores_of(2, 4, 3), cores_of(2, 4, 3), limits, num_columns, num_tiles,
                        squares, pitch, scratch);
    else
        verdict = judge(*tile, down, across, limits, num_columns, num_tiles, squares, pitch,
                        scratch);
    if (verdict == CONVEXT_UNEVEN)
        verdict = judge(*tile, cores_of(1, num_rows, tile->window_height),
                        cores_of(1, tile->windows, tile->window_width), limits, num_columns,
                        num_tiles, squares, pitch, scratch);
    return verdict;
}

/* A vector of columns after the other: its rows inside, and the others. */
static void add_up(ptrdiff_t num_rows, ptrdiff_t num_columns, const void *squares_,
                   ptrdiff_t pitch, const ptrdiff_t inside[4], double sums[3])
{
    const real *squares = squares_;
    vec sum[2] = {0}, least = {0}, column; /* the least of the negative squares */
    real total[2];
    for (int i = 0; i < LANES; i++)
        column[i] = i;
    for (ptrdiff_t x = 0; x < num_columns; x += LANES, column += LANES) {
        vec inner = {0}, outer = {0};
        for (ptrdiff_t y = 0; y < num_rows; y++) {
            const vec value = load_once(squares + y * pitch + x);
            if (y >= inside[0] && y < inside[1])
                inner += value;
            else
                outer += value;
            least = smaller(-value, least);
        }
        const mask counts = (column >= (real)inside[2]) & (column < (real)inside[3]);
        sum[0] += inner + outer;
        sum[1] += (vec)((mask)inner & counts);
    }
    sum_lanes(2, (real *)sum, total);
    sums[0] += total[0];
    sums[1] += total[1];
    for (int i = 0; i < LANES; i++)
        sums[2] = -least[i] > sums[2] ? -least[i] : sums[2];
}

CONVEXT_INLINE double least_lane(vec value)
{
    double least = MOST;
    for (int i = 0; i < LANES; i++)
        least = value[i] < least ? value[i] : least;
    return least;
}

/* The last vector of a row ends with it. */
static double least_group(ptrdiff_t num_rows, ptrdiff_t num_columns, int group,
                          const void *squares_, ptrdiff_t pitch)
{
    const real *squares = squares_;
    vec least = splat((real)MOST);
    for (ptrdiff_t y = 0; y < num_rows; y++, squares += pitch)
        for (ptrdiff_t x = 0; x < num_columns; x += LANES) {
            vec sum = load(squares + (x + LANES <= num_columns ? x : num_columns - LANES));
            if (group > 1)
                sum += NEIGHBOURS(sum);
            if (group > 2)
                sum += OTHER_PAIRS(sum);
            if (group > 4)
                sum += OTHER_FOURS(sum);
            least = smaller(sum, least);
        }
    return least_lane(least);
}

static double least_window(ptrdiff_t num_rows, ptrdiff_t num_windows, ptrdiff_t width,
                           const void *squares_, ptrdiff_t pitch)
{
    const real *squares = squares_;
    double least = MOST;
    vec smallest = splat((real)MOST);
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
    return least < least_lane(smallest) ? least : least_lane(smallest);
}

#endif
