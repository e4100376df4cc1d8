/* The fast Fourier transforms of a convolution in tiles, two tiles at a time: one is the real part
 * of complex pixels, the other one the imaginary part. Kernels are real, so that the results stay
 * apart, and no transform of real numbers is needed.
 *
 * Along each axis transforms are of whole vectors of neighbouring columns: radix 4, decimated in
 * frequency on the way there and in time on the way back, so that the values of a tile stay in the
 * order in which they come out. Between the axes squares are transposed.
 *
 * A complex vector is a vector of real parts and then one of imaginary parts; a strip is LANES
 * columns of a tile, row after row. */
#ifndef CONVEXT_FFT_H
#define CONVEXT_FFT_H

#include "microkernel.h"
#include "simd.h"
#include "squares.h"

#include <string.h>

typedef struct {
    vec re, im;
} complex_vec;

/* Elements of a complex vector. */
enum { COMPLEX = 2 * LANES };

CONVEXT_INLINE complex_vec load_complex(const real *from)
{
    return (complex_vec){load(from), load(from + LANES)};
}

CONVEXT_INLINE void store_complex(real *to, complex_vec value)
{
    store(to, value.re);
    store(to + LANES, value.im);
}

CONVEXT_INLINE complex_vec plus(complex_vec a, complex_vec b)
{
    return (complex_vec){a.re + b.re, a.im + b.im};
}

CONVEXT_INLINE complex_vec minus(complex_vec a, complex_vec b)
{
    return (complex_vec){a.re - b.re, a.im - b.im};
}

/* By -i, or, on the way back, by i. */
CONVEXT_INLINE complex_vec turn(const int inverse, complex_vec a)
{
    return inverse ? (complex_vec){-a.im, a.re} : (complex_vec){a.im, -a.re};
}

/* By a root of unity, or, on the way back, by its conjugate. */
CONVEXT_INLINE complex_vec twiddle(const int inverse, complex_vec a, const real root[2])
{
    const vec re = splat(root[0]), im = splat(root[1]);
    if (inverse)
        return (complex_vec){a.re * re + a.im * im, a.im * re - a.re * im};
    return (complex_vec){a.re * re - a.im * im, a.im * re + a.re * im};
}

/* The transform of four values. */
CONVEXT_INLINE void butterfly(const int inverse, complex_vec x[4])
{
    const complex_vec even = plus(x[0], x[2]), odd = plus(x[1], x[3]);
    const complex_vec even_difference = minus(x[0], x[2]);
    const complex_vec odd_difference = turn(inverse, minus(x[1], x[3]));
    x[0] = plus(even, odd);
    x[1] = plus(even_difference, odd_difference);
    x[2] = minus(even, odd);
    x[3] = minus(even_difference, odd_difference);
}

/* The transform of three values. */
CONVEXT_INLINE void triple(const int inverse, complex_vec x[3])
{
    const real sine = 0.86602540378443864676;
    const complex_vec sum = plus(x[1], x[2]);
    const complex_vec difference = turn(inverse, minus(x[1], x[2]));
    const complex_vec middle = {x[0].re - (real)0.5 * sum.re, x[0].im - (real)0.5 * sum.im};
    x[0] = plus(x[0], sum);
    x[1] = (complex_vec){middle.re + sine * difference.re, middle.im + sine * difference.im};
    x[2] = (complex_vec){middle.re - sine * difference.re, middle.im - sine * difference.im};
}

/* The powers 1, 2 and 3 of the k-th of `size` roots of unity are the six numbers from 6 * k on. */
CONVEXT_INLINE const real *roots(const real *twiddles, ptrdiff_t size)
{
    return twiddles + 9 * (size / 2 - 2);
}

/* One step of a transform of `size` rows there. */
CONVEXT_INLINE void step(ptrdiff_t size, real *strip, const real *root)
{
    const ptrdiff_t quarter = size / 4 * COMPLEX;
    for (ptrdiff_t k = 0; k < size / 4; k++, strip += COMPLEX, root += 6) {
        complex_vec x[4];
        UNROLL(4)
        for (int i = 0; i < 4; i++)
            x[i] = load_complex(strip + i * quarter);
        butterfly(0, x);
        store_complex(strip, x[0]);
        UNROLL(3)
        for (int i = 1; i < 4; i++)
            store_complex(strip + i * quarter, twiddle(0, x[i], root + 2 * i - 2));
    }
}

/* And back. */
CONVEXT_INLINE void inverse_step(ptrdiff_t size, real *strip, const real *root)
{
    const ptrdiff_t quarter = size / 4 * COMPLEX;
    for (ptrdiff_t k = 0; k < size / 4; k++, strip += COMPLEX, root += 6) {
        complex_vec x[4];
        x[0] = load_complex(strip);
        UNROLL(3)
        for (int i = 1; i < 4; i++)
            x[i] = twiddle(1, load_complex(strip + i * quarter), root + 2 * i - 2);
        butterfly(1, x);
        UNROLL(4)
        for (int i = 0; i < 4; i++)
            store_complex(strip + i * quarter, x[i]);
    }
}

/* The transforms of `half` rows each, three or four, there or back. */
CONVEXT_INLINE void transform_few(const int inverse, const int half, complex_vec x[4])
{
    if (half == 4)
        butterfly(inverse, x);
    else
        triple(inverse, x);
}

CONVEXT_INLINE void last_rows(const int inverse, const int size, ptrdiff_t rows, real *strip)
{
    for (ptrdiff_t row = 0; row < rows; row += size, strip += size * COMPLEX) {
        complex_vec x[4];
        UNROLL(4)
        for (int i = 0; i < size; i++)
            x[i] = load_complex(strip + i * COMPLEX);
        transform_few(inverse, size, x);
        UNROLL(4)
        for (int i = 0; i < size; i++)
            store_complex(strip + i * COMPLEX, x[i]);
    }
}

/* The transforms of twice as many rows each. */
CONVEXT_INLINE void last_pairs(const int inverse, const int half, ptrdiff_t rows, real *strip)
{
    static const real root_of_8[4][2] = {{1, 0},
                                         {0.70710678118654752440, -0.70710678118654752440},
                                         {0, -1},
                                         {-0.70710678118654752440, -0.70710678118654752440}};
    static const real root_of_6[3][2] = {
        {1, 0}, {0.5, -0.86602540378443864676}, {-0.5, -0.86602540378443864676}};
    const real(*root)[2] = half == 4 ? root_of_8 : root_of_6;
    for (ptrdiff_t row = 0; row < rows; row += 2 * half, strip += 2 * half * COMPLEX) {
        complex_vec x[2][4];
        UNROLL(4)
        for (int i = 0; i < half; i++) {
            x[0][i] = load_complex(strip + i * COMPLEX);
            x[1][i] = load_complex(strip + (half + i) * COMPLEX);
        }
        if (inverse) {
            transform_few(1, half, x[0]);
            transform_few(1, half, x[1]);
        }
        UNROLL(4)
        for (int i = 0; i < half; i++) {
            const complex_vec a = x[0][i];
            complex_vec b = x[1][i];
            if (inverse && i > 0)
                b = twiddle(1, b, root[i]);
            x[0][i] = plus(a, b);
            b = minus(a, b);
            x[1][i] = inverse || i == 0 ? b : twiddle(0, b, root[i]);
        }
        if (!inverse) {
            transform_few(0, half, x[0]);
            transform_few(0, half, x[1]);
        }
        UNROLL(4)
        for (int i = 0; i < half; i++) {
            store_complex(strip + i * COMPLEX, x[0][i]);
            store_complex(strip + (half + i) * COMPLEX, x[1][i]);
        }
    }
}

/* The last step there, and the first one back: transforms of 3, 4, 6 or 8 rows. */
CONVEXT_INLINE void last_transforms(const int inverse, ptrdiff_t size, ptrdiff_t rows,
                                    real *strip)
{
    if (size == 8)
        last_pairs(inverse, 4, rows, strip);
    else if (size == 6)
        last_pairs(inverse, 3, rows, strip);
    else if (size == 4)
        last_rows(inverse, 4, rows, strip);
    else
        last_rows(inverse, 3, rows, strip);
}

/* All steps of `rows` rows that are transforms of `size` rows by now. */
static CONVEXT_NO_INLINE void transform(ptrdiff_t rows, ptrdiff_t size, real *strip,
                                        const real *twiddles)
{
    for (; size > 8; size /= 4)
        for (ptrdiff_t row = 0; row < rows; row += size)
            step(size, strip + row * COMPLEX, roots(twiddles, size));
    last_transforms(0, size, rows, strip);
}

/* The same back, up to transforms of `size` rows. */
static CONVEXT_NO_INLINE void inverse_transform(ptrdiff_t rows, ptrdiff_t size, real *strip,
                                                const real *twiddles)
{
    ptrdiff_t done = size;
    while (done > 8)
        done /= 4;
    last_transforms(1, done, rows, strip);
    while (done < size) {
        done *= 4;
        for (ptrdiff_t row = 0; row < rows; row += done)
            inverse_step(done, strip + row * COMPLEX, roots(twiddles, done));
    }
}

/* The first step of a strip, from the pixels of the two tiles; those below their rows are zero. Adds
 * their squares to the vectors from `squares` on, in turns. */
static CONVEXT_NO_INLINE void first_step(ptrdiff_t size, const convext_fft_pixels tile[2],
                                         ptrdiff_t column, real *strip, const real *root,
                                         vec squares[4])
{
    vec sum[4];
    memcpy(sum, squares, sizeof sum);
    const ptrdiff_t quarter = size / 4;
    const real *re = (const real *)tile[0].data + column;
    const real *im = (const real *)tile[1].data + column;
    for (ptrdiff_t k = 0; k < quarter; k++, strip += COMPLEX, root += 6) {
        complex_vec x[4];
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            const ptrdiff_t row = k + i * quarter;
            x[i].re = row < tile[0].rows ? load(re + row * tile[0].pitch) : (vec){0};
            x[i].im = row < tile[1].rows ? load(im + row * tile[1].pitch) : (vec){0};
            sum[i] += x[i].re * x[i].re;
            sum[i] += x[i].im * x[i].im;
        }
        butterfly(0, x);
        store_complex(strip, x[0]);
        UNROLL(3)
        for (int i = 1; i < 4; i++)
            store_complex(strip + i * quarter * COMPLEX, twiddle(0, x[i], root + 2 * i - 2));
    }
    memcpy(squares, sum, sizeof sum);
}

CONVEXT_INLINE void add_result(real *to, vec result, int accumulate)
{
    store(to, accumulate ? load(to) + result : result);
}

/* The last step of a strip, to the results of the two tiles, as many rows as they have. */
static CONVEXT_NO_INLINE void last_step(ptrdiff_t size, real *strip,
                                        const convext_fft_pixels tile[2], ptrdiff_t column,
                                        vec bias, int accumulate, const real *root)
{
    const ptrdiff_t quarter = size / 4;
    real *re = (real *)tile[0].data + column;
    real *im = (real *)tile[1].data + column;
    for (ptrdiff_t k = 0; k < quarter; k++, strip += COMPLEX, root += 6) {
        complex_vec x[4];
        x[0] = load_complex(strip);
        UNROLL(3)
        for (int i = 1; i < 4; i++)
            x[i] = twiddle(1, load_complex(strip + i * quarter * COMPLEX), root + 2 * i - 2);
        butterfly(1, x);
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            const ptrdiff_t row = k + i * quarter;
            if (row < tile[0].rows)
                add_result(re + row * tile[0].pitch, x[i].re + bias, accumulate);
            if (row < tile[1].rows)
                add_result(im + row * tile[1].pitch, x[i].im + bias, accumulate);
        }
    }
}

/* LANES complex vectors from `from` on, `from_stride` elements apart, to columns. */
CONVEXT_INLINE void transpose_complex(const real *from, real *to)
{
    UNROLL(2)
    for (int part = 0; part < 2; part++) {
        vec square[LANES];
        UNROLL(16)
        for (int i = 0; i < LANES; i++)
            square[i] = load(from + i * COMPLEX + part * LANES);
        transpose(square);
        UNROLL(16)
        for (int i = 0; i < LANES; i++)
            store(to + i * COMPLEX + part * LANES, square[i]);
    }
}

/* Of `count` pairs of rows, each the lower one of the next, the squares of that which has least.
 * Pixels that are not finite count in the sum of all squares. */
CONVEXT_INLINE void add_least(const int count, const real *const rows[5], ptrdiff_t num_columns,
                              real *to)
{
    for (ptrdiff_t x = 0; x < num_columns; x += LANES) {
        vec least = splat((real)MOST), above = load_once(rows[0] + x);
        above *= above;
        UNROLL(4)
        for (int i = 1; i <= count; i++) {
            vec square = load_once(rows[i] + x);
            square *= square;
            least = smaller(above + square, least);
            above = square;
        }
        store(to + x, load(to + x) + least);
    }
}

static void add_groups(const convext_fft_pixels *tile, const convext_fft_rows *inside,
                       ptrdiff_t num_columns, real *to, ptrdiff_t to_pitch)
{
    if (inside->pairs == 0)
        return;
    const ptrdiff_t distance = (inside->height - 1) / inside->pairs;
    const ptrdiff_t farther = inside->height - 1 - distance * inside->pairs;
    const ptrdiff_t pitch = inside->spread * tile->pitch;
    const real *rows[5] = {(const real *)tile->data + inside->top * tile->pitch};
    for (ptrdiff_t pair = 0; pair < inside->pairs; to += to_pitch) {
        int count = 0;
        for (; count < inside->group && pair < inside->pairs; count++, pair++)
            rows[count + 1] =
                rows[count] + (distance + (pair >= inside->pairs - farther)) * pitch;
        if (count == 4)
            add_least(4, rows, num_columns, to);
        else
            add_least(count, rows, num_columns, to);
        rows[0] = rows[count];
    }
}

static double fft_forward(ptrdiff_t rows, ptrdiff_t columns, const convext_fft_pixels tile[2],
                          ptrdiff_t num_columns, const void *twiddles_, void *strip_,
                          void *values_, const convext_fft_rows inside[2], void *least,
                          ptrdiff_t least_stride)
{
    vec squares[4] = {0};
    double total = 0;
    const real *twiddles = twiddles_;
    real *strip = strip_, *values = values_;
    for (ptrdiff_t x = 0; x < columns; x += LANES) {
        if (x < num_columns) {
            first_step(rows, tile, x, strip, roots(twiddles, rows), squares);
            transform(rows, rows / 4, strip, twiddles);
        }
        for (ptrdiff_t y = 0; y < rows; y += LANES) {
            real *to = values + (y / LANES * columns + x) * COMPLEX;
            if (x < num_columns)
                transpose_complex(strip + y * COMPLEX, to);
            else
                memset(to, 0, LANES * COMPLEX * sizeof(real));
        }
    }
    for (int i = 0; least && i < 2; i++)
        add_groups(&tile[i], &inside[i], num_columns, (real *)least + i * least_stride, columns);
    for (ptrdiff_t y = 0; y < rows; y += LANES)
        transform(columns, columns, values + y * columns * 2, twiddles);
    squares[0] += squares[1] + squares[2] + squares[3];
    for (int i = 0; i < LANES; i++)
        total += squares[0][i];
    return total;
}

static void fft_conjugate(ptrdiff_t count, void *values_)
{
    real *values = values_;
    for (ptrdiff_t i = 0; i < count; i += LANES, values += COMPLEX)
        store(values + LANES, -load(values + LANES));
}

/* In registers: four complex vectors of sums, of one, two or four pairs of tiles. */
CONVEXT_INLINE void multiply_values(const int pairs, ptrdiff_t num_channels, const real *values,
                                    ptrdiff_t pair_stride, ptrdiff_t values_stride,
                                    const real *kernel, ptrdiff_t kernel_stride, real *sums,
                                    ptrdiff_t sums_stride)
{
    const int vectors = 4 / pairs;
    complex_vec sum[4] = {0};
    for (ptrdiff_t c = 0; c < num_channels; c++) {
        UNROLL(4)
        for (int i = 0; i < vectors; i++) {
            const complex_vec b = load_complex(kernel + i * COMPLEX);
            UNROLL(4)
            for (int p = 0; p < pairs; p++) {
                const complex_vec a = load_complex(values + p * pair_stride + i * COMPLEX);
                complex_vec *to = &sum[i * pairs + p];
                to->re += a.re * b.re;
                to->im += a.re * b.im;
                to->re -= a.im * b.im;
                to->im += a.im * b.re;
            }
        }
        values += values_stride;
        kernel += kernel_stride;
    }
    UNROLL(4)
    for (int i = 0; i < vectors; i++)
        UNROLL(4)
        for (int p = 0; p < pairs; p++)
            store_complex(sums + p * sums_stride + i * COMPLEX, sum[i * pairs + p]);
}

CONVEXT_INLINE void multiply_strip(const int pairs, ptrdiff_t size, ptrdiff_t num_channels,
                                   const real *values, ptrdiff_t pair_stride,
                                   ptrdiff_t values_stride, const real *kernel,
                                   ptrdiff_t kernel_stride, real *sums, ptrdiff_t sums_stride)
{
    for (ptrdiff_t i = 0; i < size; i += 4 / pairs * COMPLEX)
        multiply_values(pairs, num_channels, values + i, pair_stride, values_stride, kernel + i,
                        kernel_stride, sums + i, sums_stride);
}

static void fft_products(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t num_pairs,
                         ptrdiff_t num_channels, const void *values_, ptrdiff_t pair_stride,
                         ptrdiff_t values_stride, const void *kernel_, ptrdiff_t kernel_stride,
                         const void *twiddles, void *sums_, ptrdiff_t sums_stride)
{
    const real *values = values_, *kernel = kernel_;
    const ptrdiff_t size = columns * COMPLEX;
    real *sums = sums_;
    for (ptrdiff_t y = 0; y < rows; y += LANES) {
        if (num_pairs == 4)
            multiply_strip(4, size, num_channels, values, pair_stride, values_stride, kernel,
                           kernel_stride, sums, sums_stride);
        else if (num_pairs == 2)
            multiply_strip(2, size, num_channels, values, pair_stride, values_stride, kernel,
                           kernel_stride, sums, sums_stride);
        else
            multiply_strip(1, size, num_channels, values, pair_stride, values_stride, kernel,
                           kernel_stride, sums, sums_stride);
        for (ptrdiff_t p = 0; p < num_pairs; p++)
            inverse_transform(columns, columns, sums + p * sums_stride, twiddles);
        values += size;
        kernel += size;
        sums += size;
    }
}

/* The results of a strip that is not all wanted, from the strip, where they take the place of the
 * values. */
static void copy_columns(ptrdiff_t num_columns, const real *strip, const convext_fft_pixels *tile,
                         ptrdiff_t column, int accumulate)
{
    real *to = (real *)tile->data + column;
    for (ptrdiff_t row = 0; row < tile->rows; row++, strip += COMPLEX, to += tile->pitch)
        for (ptrdiff_t i = 0; i < num_columns; i++)
            to[i] = accumulate ? to[i] + strip[i] : strip[i];
}

static void fft_results(ptrdiff_t rows, ptrdiff_t columns, const void *sums_, double bias_,
                        const void *twiddles_, void *strip_, const convext_fft_pixels tile[2],
                        int accumulate)
{
    const vec bias = splat((real)bias_);
    const real *sums = sums_, *twiddles = twiddles_;
    real *strip = strip_;
    const convext_fft_pixels in_place[2] = {
        {strip, COMPLEX, tile[0].rows, LANES}, {strip + LANES, COMPLEX, tile[1].rows, LANES}};
    const ptrdiff_t whole =
        tile[1].rows && tile[1].columns < tile[0].columns ? tile[1].columns : tile[0].columns;
    for (ptrdiff_t x = 0; x < tile[0].columns || x < tile[1].columns; x += LANES) {
        for (ptrdiff_t y = 0; y < rows; y += LANES)
            transpose_complex(sums + (y / LANES * columns + x) * COMPLEX, strip + y * COMPLEX);
        inverse_transform(rows, rows / 4, strip, twiddles);
        if (x + LANES <= whole) {
            last_step(rows, strip, tile, x, bias, accumulate, roots(twiddles, rows));
            continue;
        }
        last_step(rows, strip, in_place, 0, bias, 0, roots(twiddles, rows));
        for (int i = 0; i < 2; i++)
            if (x < tile[i].columns) {
                const ptrdiff_t rest = tile[i].columns - x;
                copy_columns(rest < LANES ? rest : LANES, strip + i * LANES, &tile[i], x,
                             accumulate);
            }
    }
}

#endif
