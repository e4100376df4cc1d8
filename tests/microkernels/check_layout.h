/* Checks of rows added and subtracted, and of elements laid out anew. */
#ifndef CONVEXT_TEST_CHECK_LAYOUT_H
#define CONVEXT_TEST_CHECK_LAYOUT_H

#include "checks.h"

/* Rows of elements that may lie in any order: that of row r and index i is
 * at[r * row_stride + i * step]. */
typedef struct {
    ptrdiff_t rows, count, row_stride, step;
    const real *at;
} grid;

static grid draw_grid(const table *micro)
{
    static const ptrdiff_t steps[] = {1, 1, 1, 1, 2, 2, 3, -1};
    grid g = {between(1, 3 * micro->lanes), between(1, 4 * micro->lanes), 0,
              steps[between(0, 7)], NULL};
    const ptrdiff_t longest = g.count * MAX(g.step, -g.step);
    g.row_stride = one_in(6) ? between(-3, 3) : longest + between(0, 9);
    const ptrdiff_t rows = (g.rows - 1) * g.row_stride, elements = (g.count - 1) * g.step;
    const ptrdiff_t least = MIN(0, rows) + MIN(0, elements);
    g.at = input(MAX(0, rows) + MAX(0, elements) - least + 1) - least;
    return g;
}

static real of(const grid *g, ptrdiff_t r, ptrdiff_t i)
{
    return g->at[r * g->row_stride + i * g->step];
}

/* Square i of `count`, added to what is there for each row. */
static void want_squares(output *sums, ptrdiff_t at, const grid *g, ptrdiff_t i)
{
    wide sum = sums->before[at], magnitude = fabsl(sum);
    for (ptrdiff_t r = 0; r < g->rows; r++) {
        sum += (wide)of(g, r, i) * of(g, r, i);
        magnitude += (wide)of(g, r, i) * of(g, r, i);
    }
    want(sums, at, sum, magnitude);
}

static void want_interleaved(output *to, const grid *g, ptrdiff_t to_stride, int few_rows)
{
    for (ptrdiff_t i = 0; i < to->count; i++)
        if (few_rows && i % to_stride >= g->rows)
            may_change(to, i);
    for (ptrdiff_t i = 0; i < g->count; i++)
        for (ptrdiff_t r = 0; r < g->rows; r++)
            want_within(to, i * to_stride + r, of(g, r, i), 0);
}

static void check_interleave(const table *micro, int turn)
{
    (void)turn;
    const grid g = draw_grid(micro);
    const ptrdiff_t to_stride = g.rows + between(0, 2 * micro->lanes) * between(0, 1);
    output to = result((g.count - 1) * to_stride + g.rows);

    want_interleaved(&to, &g, to_stride, g.rows < micro->lanes);
    micro->interleave(g.count, g.rows, g.at, g.row_stride, g.step, to.at, to_stride);
    check("to", &to);
}

static void check_interleave_and_square(const table *micro, int turn)
{
    (void)turn;
    const grid g = draw_grid(micro);
    const ptrdiff_t to_stride = rounded_up(g.rows, micro->lanes) + micro->lanes * between(0, 1);
    output to = result((g.count - 1) * to_stride + g.rows), sums = result(g.count);

    want_interleaved(&to, &g, to_stride, g.rows % micro->lanes != 0);
    for (ptrdiff_t i = 0; i < g.count; i++)
        want_squares(&sums, i, &g, i);
    micro->interleave_and_square(g.count, g.rows, g.at, g.row_stride, g.step, to.at, to_stride,
                                 sums.at);
    check("to", &to);
    check("sums", &sums);
}

static void check_add_squares(const table *micro, int turn)
{
    (void)turn;
    const grid g = draw_grid(micro);
    const ptrdiff_t to_stride = g.count + between(0, 5);
    output to = result(to_stride + g.count);

    /* Two lines of the same elements. */
    for (ptrdiff_t i = 0; i < g.count; i++) {
        want_squares(&to, i, &g, i);
        want_squares(&to, to_stride + i, &g, i);
    }
    micro->add_squares(2, g.count, g.rows, g.at, 0, g.row_stride, g.step, to.at, to_stride);
    check("to", &to);
}

static void check_pack(const table *micro, int turn)
{
    (void)turn;
    const grid g = draw_grid(micro);
    const ptrdiff_t to_stride = g.count + between(0, 5);
    output to = result((g.rows - 1) * to_stride + g.count);

    for (ptrdiff_t r = 0; r < g.rows; r++)
        for (ptrdiff_t i = 0; i < g.count; i++)
            want_within(&to, r * to_stride + i, of(&g, r, i), 0);
    micro->pack(g.rows, g.count, g.at, g.row_stride, g.step, to.at, to_stride);
    check("to", &to);
}

static void check_unfold(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t pixels = between(1, 20), pieces = between(1, 6);
    ptrdiff_t *start = room_for(pieces + 1, sizeof *start);
    start[0] = between(0, 2);
    for (ptrdiff_t i = 0; i < pieces; i++)
        start[i + 1] = start[i] + between(1, micro->lanes);
    const ptrdiff_t width = start[pieces] + between(0, 3);
    const ptrdiff_t *offset = offsets(pieces, 30);
    const real *from = input(pixels - 1 + largest(offset, pieces) + micro->lanes);
    output to = scratch((pixels - 1) * width + start[pieces - 1] + micro->lanes);

    for (ptrdiff_t p = 0; p < pixels; p++)
        for (ptrdiff_t i = 0; i < pieces; i++)
            for (ptrdiff_t j = start[i]; j < start[i + 1]; j++)
                want_within(&to, p * width + j, from[p + offset[i] + j - start[i]], 0);
    micro->unfold(pixels, pieces, from, offset, to.at, start, width);
    check("to", &to);
}

/* Some rows, of a few elements or of many vectors. */
static ptrdiff_t draw_columns(const table *micro)
{
    return one_in(10) ? micro->lanes * between(60, 140) + between(0, micro->lanes)
                      : between(1, 5 * micro->lanes);
}

static void check_add_rows(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t rows = between(1, 6), columns = draw_columns(micro);
    const ptrdiff_t from_pitch = columns + between(-1, 5), to_pitch = columns + between(0, 5);
    const real *from = input((rows - 1) * from_pitch + columns);
    output to = result((rows - 1) * to_pitch + columns);

    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c++) {
            const ptrdiff_t at = r * to_pitch + c;
            want_within(&to, at, (wide)to.before[at] + from[r * from_pitch + c], 0);
        }
    micro->add_rows(rows, columns, from, from_pitch, to.at, to_pitch);
    check("to", &to);
}

static void check_residual(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t rows = between(1, 6), columns = draw_columns(micro);
    const ptrdiff_t pitch = columns + between(0, 5), target_pitch = columns + between(0, 5);
    const double scale = (double)between(-100, 100) / 64;
    const real *target = input((rows - 1) * target_pitch + columns);
    output predicted = result(rows * pitch);
    wide squares = 0;

    for (ptrdiff_t i = 0; i < rows * pitch; i++) {
        const ptrdiff_t r = i / pitch, c = i % pitch;
        const wide difference =
            c < columns ? (wide)predicted.before[i] - target[r * target_pitch + c] : 0;
        squares += difference * difference;
        want(&predicted, i, difference * scale, fabsl(difference * scale));
    }
    const double sum =
        micro->residual(rows, columns, predicted.at, pitch, target, target_pitch, scale);
    check("predicted", &predicted);
    check_number("sum of squares", sum, squares, tolerance(squares));
}

#endif
