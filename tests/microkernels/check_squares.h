/* Checks of the sums of squares by which data are judged. */
#ifndef CONVEXT_TEST_CHECK_SQUARES_H
#define CONVEXT_TEST_CHECK_SQUARES_H

#include "checks.h"

/* Squares in `rows` rows, zero from `columns` on, or NaN: where they must not count. */
static const real *draw_squares(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t pitch, real beyond)
{
    real *squares = room_for(rows * pitch, sizeof *squares);
    for (ptrdiff_t i = 0; i < rows * pitch; i++) {
        const real root = number();
        squares[i] = i % pitch < columns ? root * root : beyond;
    }
    protect(squares);
    return squares;
}

static void check_add_up(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t rows = between(1, 8), columns = between(1, 5 * micro->lanes);
    const ptrdiff_t pitch = rounded_up(columns, micro->lanes) + between(0, 3);
    const real *squares = draw_squares(rows, columns, pitch, 0);
    const ptrdiff_t top = between(0, rows), left = between(0, columns);
    const ptrdiff_t inside[4] = {top, between(top, rows), left, between(left, columns)};
    const double before[3] = {(double)between(0, 9), (double)between(0, 9), 0};
    double sums[3] = {before[0], before[1], before[2]};
    wide all = before[0], inner = before[1];
    double most = before[2];

    for (ptrdiff_t y = 0; y < rows; y++)
        for (ptrdiff_t x = 0; x < columns; x++) {
            const real square = squares[y * pitch + x];
            all += square;
            if (y >= inside[0] && y < inside[1] && x >= inside[2] && x < inside[3])
                inner += square;
            most = MAX(most, square);
        }
    micro->add_up(rows, columns, squares, pitch, inside, sums);
    check_number("sum of all", sums[0], all, tolerance(all));
    check_number("sum inside", sums[1], inner, tolerance(all));
    check_number("largest", sums[2], most, 0);
}

static wide window_sum(const real *squares, ptrdiff_t pitch, ptrdiff_t height, ptrdiff_t width)
{
    wide sum = 0;
    for (ptrdiff_t i = 0; i < height; i++)
        for (ptrdiff_t j = 0; j < width; j++)
            sum += squares[i * pitch + j];
    return sum;
}

static void check_least_window(const table *micro, int turn)
{
    (void)turn;
    const ptrdiff_t rows = between(1, 4), width = between(1, 9);
    const ptrdiff_t windows = between(1, 4 * micro->lanes), columns = windows + width - 1;
    const ptrdiff_t pitch = columns + between(0, 3);
    const real *squares = draw_squares(rows, columns, pitch, (real)NAN);
    wide least = 1e38L;

    for (ptrdiff_t y = 0; y < rows; y++)
        for (ptrdiff_t x = 0; x < windows; x++)
            least = MIN(least, window_sum(squares + y * pitch + x, pitch, 1, width));
    check_number("least window", micro->least_window(rows, windows, width, squares, pitch), least,
                 tolerance(least));
}

static void check_least_group(const table *micro, int turn)
{
    const int group = 1 << turn % 4;
    if (group > micro->lanes)
        return;
    const ptrdiff_t rows = between(1, 4);
    const ptrdiff_t columns = rounded_up(between(micro->lanes, 5 * micro->lanes), group);
    const ptrdiff_t pitch = columns + between(0, 3);
    const real *squares = draw_squares(rows, columns, pitch, (real)NAN);
    wide least = 1e38L;

    for (ptrdiff_t y = 0; y < rows; y++)
        for (ptrdiff_t x = 0; x < columns; x += group)
            least = MIN(least, window_sum(squares + y * pitch + x, pitch, 1, group));
    check_number("least group", micro->least_group(rows, columns, group, squares, pitch), least,
                 tolerance(least));
}

/* What a window holds at least: in each column what the windows above and below hold there, too. */
static wide least_of_columns(const convext_tile *tile, ptrdiff_t num_rows, const real *squares,
                             ptrdiff_t pitch)
{
    wide sum = 0;
    for (ptrdiff_t j = 0; j < tile->window_width; j++) {
        wide least = window_sum(squares + j, pitch, tile->window_height, 1);
        for (ptrdiff_t y = 1; y < num_rows; y++)
            least = MIN(least,
                        window_sum(squares + y * pitch + j, pitch, tile->window_height, 1));
        sum += least;
    }
    return sum;
}

/* Sets whether some tiles have to be called uneven, may be, and whether one is small. */
static void judge_plainly(const convext_tile *tile, const convext_limits *limits,
                          ptrdiff_t num_rows, ptrdiff_t num_columns, ptrdiff_t num_tiles,
                          const real *squares, ptrdiff_t pitch, int *must, int *may, int *small)
{
    const wide slack = 1e-4L;
    *must = *may = *small = 0;
    for (ptrdiff_t x = 0; x < num_tiles; x++) {
        const wide sum = window_sum(squares + x, pitch, tile->height, tile->width);
        *must |= sum > limits->most;
        *small |= sum < limits->least;
        for (ptrdiff_t i = x; i < x + tile->windows && i < num_columns; i++) {
            const wide least = least_of_columns(tile, num_rows, squares + i, pitch);
            *may |= sum >= limits->ratio * least * (1 - slack);
            for (ptrdiff_t y = 0; y < num_rows; y++) {
                const wide window = window_sum(squares + y * pitch + i, pitch,
                                               tile->window_height, tile->window_width);
                *must |= sum > limits->ratio * window * (1 + slack);
            }
        }
    }
}

static void check_uneven(const table *micro, int turn)
{
    const ptrdiff_t num_rows = turn % 2 ? 4 : between(1, 5);
    const ptrdiff_t windows = turn % 2 ? 4 : between(1, 5);
    const ptrdiff_t height = turn % 2 ? 3 : between(1 + (num_rows > 1), 6);
    const ptrdiff_t width = turn % 2 ? 3 : between(1 + (windows > 1), 6);
    const convext_tile tile = {num_rows + height - 1, windows + width - 1, height, width, windows};
    const ptrdiff_t num_tiles = between(1, 5 * micro->lanes);
    const ptrdiff_t num_columns = between(1, num_tiles + windows - 1);
    const ptrdiff_t columns = num_tiles + tile.width - 1;
    const ptrdiff_t pitch = columns + tile.width + 2 * micro->lanes + between(0, 3);
    const convext_limits limits = {(double)between(2, 200), one_in(8) ? 100 : 1e30,
                                   one_in(8) ? 1e-6 : 1e-30};
    const real *squares = draw_squares(tile.height, columns, pitch, (real)NAN);
    int must, may, small;
    judge_plainly(&tile, &limits, num_rows, num_columns, num_tiles, squares, pitch, &must, &may,
                  &small);
    output rows = scratch(3 * pitch);
    const int got = micro->uneven(&tile, &limits, num_rows, num_columns, num_tiles, squares, pitch,
                                  rows.at);
    if (got != CONVEXT_UNEVEN || !may)
        check_number("verdict", got,
                     must ? CONVEXT_UNEVEN : small ? CONVEXT_SMALL : CONVEXT_EVEN, 0);
}

#endif
