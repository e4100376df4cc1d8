/* Checks of the sums of products: `correlate`, `slide`, `dot`, and those of single channels. */
#ifndef CONVEXT_TEST_CHECK_PRODUCTS_H
#define CONVEXT_TEST_CHECK_PRODUCTS_H

#include "checks.h"

/* One chain of taps, often, or some. */
static ptrdiff_t draw_taps(void)
{
    return one_in(10) ? between(CONVEXT_CHAIN - 2, 2 * CONVEXT_CHAIN + 3) : between(1, 40);
}

static void check_correlation(const table *micro, int kernels, int in_rows)
{
    const ptrdiff_t taps = draw_taps();
    const ptrdiff_t most_vectors = taps > 40 ? 4 : 2 * micro->correlate_vectors[kernels] + 4;
    const ptrdiff_t pixels = micro->lanes * between(1, most_vectors);
    const ptrdiff_t row_stride = taps + between(0, 3), sums_stride = pixels + between(0, 5);
    const ptrdiff_t *offset = offsets(taps, 99), *weight_offset = offsets(taps, 99);
    const real *from = input(largest(offset, taps) + pixels);
    const real *weights = input(in_rows ? (kernels - 1) * row_stride + taps
                                        : largest(weight_offset, taps) + kernels);
    const int accumulate = (int)between(0, 1);
    output sums = result((kernels - 1) * sums_stride + pixels);

    for (ptrdiff_t k = 0; k < kernels; k++)
        for (ptrdiff_t p = 0; p < pixels; p++) {
            const ptrdiff_t at = k * sums_stride + p;
            wide sum = accumulate ? sums.before[at] : 0, magnitude = fabsl(sum);
            for (ptrdiff_t t = 0; t < taps; t++) {
                const wide weight = weights[in_rows ? k * row_stride + t : weight_offset[t] + k];
                sum += weight * from[offset[t] + p];
                magnitude += fabsl(weight * from[offset[t] + p]);
            }
            want(&sums, at, sum, magnitude);
        }
    if (in_rows)
        micro->correlate_rows(taps, pixels, weights, row_stride, from, offset, sums.at,
                              sums_stride, accumulate);
    else
        micro->correlate[kernels](taps, pixels, weights, weight_offset, from, offset, sums.at,
                                  sums_stride, accumulate);
    check("sums", &sums);
}

static void check_correlate(const table *micro, int turn)
{
    check_correlation(micro, 1 + turn % micro->max_kernels, 0);
}

static void check_correlate_rows(const table *micro, int turn)
{
    (void)turn;
    check_correlation(micro, micro->max_kernels, 1);
}

static void check_slide(const table *micro, int turn)
{
    const int rows = 1 + turn % micro->max_slide_rows, accumulate = (int)between(0, 1);
    const ptrdiff_t num_rows = between(rows, rows + 4), num_columns = between(1, 7);
    const ptrdiff_t pixels = accumulate ? micro->lanes * between(1, 20)
                                        : between(micro->lanes, 20 * micro->lanes);
    const ptrdiff_t pitch = between(0, 50), sums_stride = pixels + between(0, 5);
    const ptrdiff_t *offset = offsets(num_columns, 30);
    const real *from =
        input((rows + num_rows - 2) * pitch + largest(offset, num_columns) + pixels);
    const real *weights = input(num_rows * num_columns);
    output sums = result((rows - 1) * sums_stride + pixels);

    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t p = 0; p < pixels; p++) {
            const ptrdiff_t at = r * sums_stride + p;
            wide sum = accumulate ? sums.before[at] : 0, magnitude = fabsl(sum);
            for (ptrdiff_t i = 0; i < num_rows; i++)
                for (ptrdiff_t j = 0; j < num_columns; j++) {
                    const wide product = (wide)weights[i * num_columns + j]
                                         * from[(r + i) * pitch + offset[j] + p];
                    sum += product;
                    magnitude += fabsl(product);
                }
            want(&sums, at, sum, magnitude);
        }
    micro->slide[rows](num_rows, num_columns, pixels, weights, from, pitch, offset, sums.at,
                       sums_stride, accumulate);
    check("sums", &sums);
}

/* The sizes of a dot in turns. */
static void check_dot(const table *micro, int turn)
{
    int rows = 1, sizes = 0;
    for (int r = 1; r <= micro->max_rows; r++)
        sizes += micro->max_dot_taps[r];
    turn %= sizes;
    for (; turn >= micro->max_dot_taps[rows]; rows++)
        turn -= micro->max_dot_taps[rows];
    const int taps = turn + 1;
    const ptrdiff_t vectors = one_in(10) ? between(CONVEXT_CHAIN - 2, 2 * CONVEXT_CHAIN + 3)
                                         : between(1, 20);
    const ptrdiff_t pixels = micro->lanes * vectors, row_stride = pixels + between(0, 5);
    const ptrdiff_t *offset = offsets(taps, 50);
    const real *from = input(largest(offset, taps) + pixels);
    const real *gradient = input((rows - 1) * row_stride + pixels);
    output sums = result(rows * taps);

    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t t = 0; t < taps; t++) {
            wide sum = 0, magnitude = 0;
            for (ptrdiff_t p = 0; p < pixels; p++) {
                const wide product = (wide)gradient[r * row_stride + p] * from[offset[t] + p];
                sum += product;
                magnitude += fabsl(product);
            }
            want(&sums, r * taps + t, sum, magnitude);
        }
    micro->dot[rows][taps](pixels, gradient, row_stride, from, offset, sums.at);
    check("sums", &sums);
}

/* The windows of a channel: anywhere, or 3x3 taps side by side. */
typedef struct {
    ptrdiff_t taps_h, taps_w, row_step, tap_step, rows, columns;
    const ptrdiff_t *offset;
    const real *pixels;
} channel;

static channel draw_channel(const table *micro)
{
    channel c = {between(1, 5), between(1, 5), between(0, 60), between(0, 60), between(1, 9),
                 between(1, 4 * micro->lanes), NULL, NULL};
    ptrdiff_t *offset;
    const int small = one_in(2);
    if (small) {
        c.taps_h = c.taps_w = 3;
        c.row_step = c.tap_step;
    }
    offset = room_for(c.taps_w, sizeof *offset);
    for (ptrdiff_t j = 0; j < c.taps_w; j++)
        offset[j] = small && j > 0 ? offset[j - 1] + 1 : between(0, 20);
    c.offset = offset;
    const ptrdiff_t last_row = (c.rows - 1) * c.row_step + (c.taps_h - 1) * c.tap_step
                               + largest(offset, c.taps_w);
    c.pixels = input_with_rest(last_row + c.columns,
                               last_row + rounded_up(c.columns, micro->lanes));
    return c;
}

static wide pixel_of(const channel *c, ptrdiff_t y, ptrdiff_t x, ptrdiff_t i, ptrdiff_t j)
{
    return c->pixels[y * c->row_step + i * c->tap_step + c->offset[j] + x];
}

static void check_depthwise(const table *micro, int turn)
{
    (void)turn;
    const channel c = draw_channel(micro);
    const double bias = number();
    const real *weights = input(c.taps_h * c.taps_w);
    const ptrdiff_t out_stride = c.columns + between(0, 5);
    output out = result((c.rows - 1) * out_stride + c.columns);

    for (ptrdiff_t y = 0; y < c.rows; y++)
        for (ptrdiff_t x = 0; x < c.columns; x++) {
            wide sum = bias, magnitude = fabs(bias);
            for (ptrdiff_t i = 0; i < c.taps_h; i++)
                for (ptrdiff_t j = 0; j < c.taps_w; j++) {
                    const wide product = weights[i * c.taps_w + j] * pixel_of(&c, y, x, i, j);
                    sum += product;
                    magnitude += fabsl(product);
                }
            want(&out, y * out_stride + x, sum, magnitude);
        }
    micro->depthwise(c.taps_h, c.taps_w, weights, bias, c.pixels, c.row_step, c.tap_step, c.offset,
                     c.rows, c.columns, out.at, out_stride);
    check("out", &out);
}

static void check_depthwise_gradient(const table *micro, int turn)
{
    (void)turn;
    const channel c = draw_channel(micro);
    const ptrdiff_t whole = rounded_up(c.columns, micro->lanes), stride = whole + between(0, 5);
    const ptrdiff_t count = (c.rows - 1) * stride + whole;
    real *gradient = room_for(count, sizeof *gradient);
    output sums = result(c.taps_h * c.taps_w);

    for (ptrdiff_t i = 0; i < count; i++)
        gradient[i] = i % stride < c.columns ? number() : 0;
    protect(gradient);
    for (ptrdiff_t i = 0; i < c.taps_h; i++)
        for (ptrdiff_t j = 0; j < c.taps_w; j++) {
            wide sum = 0, magnitude = 0;
            for (ptrdiff_t y = 0; y < c.rows; y++)
                for (ptrdiff_t x = 0; x < c.columns; x++) {
                    const wide product = gradient[y * stride + x] * pixel_of(&c, y, x, i, j);
                    sum += product;
                    magnitude += fabsl(product);
                }
            want(&sums, i * c.taps_w + j, sum, magnitude);
        }
    micro->depthwise_gradient(c.taps_h, c.taps_w, gradient, stride, c.pixels, c.row_step,
                              c.tap_step, c.offset, c.rows, c.columns, sums.at);
    check("sums", &sums);
}

#endif
