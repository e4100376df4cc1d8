/* Rows of predictions and of sums, added or subtracted in place. */
#ifndef CONVEXT_ROWS_H
#define CONVEXT_ROWS_H

#include "simd.h"

static double sum_of_lanes(vec value)
{
    real lane[LANES], sum;
    store(lane, value);
    sum_lanes(1, lane, &sum);
    return sum;
}

/* So many vectors of squares are added up in `real`, and their sums in double. */
enum { MAX_SQUARES = 64 };

/* A row is taken in whole vectors. The last one ends with the row; where it begins within the one
 * before, it is computed first, since the results replace the predictions. */
static double residual(ptrdiff_t num_rows, ptrdiff_t num_columns, void *predicted_,
                       ptrdiff_t pitch, const void *target_, ptrdiff_t target_pitch, double scale_)
{
    const vec scale = splat((real)scale_);
    const ptrdiff_t whole = num_columns / LANES * LANES;
    const ptrdiff_t last = num_columns - LANES;
    real beyond_whole[LANES];
    vec squares = {0};
    double sum = 0;

    for (ptrdiff_t i = 0; i < LANES; i++)
        beyond_whole[i] = last + i >= whole;
    const mask rest = load(beyond_whole) != 0;

    for (ptrdiff_t r = 0, vectors = 0; r < num_rows; r++) {
        real *predicted = (real *)predicted_ + r * pitch;
        const real *target = (const real *)target_ + r * target_pitch;
        if (last < 0) {
            for (ptrdiff_t c = 0; c < num_columns; c++) {
                const real difference = predicted[c] - target[c];
                sum += (double)difference * difference;
                predicted[c] = difference * scale[0];
            }
        } else {
            const vec end = load(predicted + last) - load(target + last);
            const vec rest_of_end = (vec)((mask)end & rest);
            for (ptrdiff_t c = 0, until; c < whole;) {
                until = MIN(whole, c + (MAX_SQUARES - vectors) * LANES);
                vectors += (until - c) / LANES;
                for (; c < until; c += LANES) {
                    const vec difference = load(predicted + c) - load(target + c);
                    squares += difference * difference;
                    store(predicted + c, difference * scale);
                }
                if (vectors == MAX_SQUARES) {
                    sum += sum_of_lanes(squares);
                    squares = (vec){0};
                    vectors = 0;
                }
            }
            squares += rest_of_end * rest_of_end;
            store(predicted + last, end * scale);
        }
        /* Volatile, or the compiler calls memset for one or two elements. */
        for (ptrdiff_t c = num_columns; c < pitch; c++)
            *(volatile real *)(predicted + c) = 0;
    }
    return sum + sum_of_lanes(squares);
}

/* The last vector of a row ends with the row. Where it begins within the one before, it is computed
 * first, from what was there. */
static void add_rows(ptrdiff_t num_rows, ptrdiff_t num_columns, const void *from_,
                     ptrdiff_t from_pitch, void *to_, ptrdiff_t to_pitch)
{
    const real *from = from_;
    real *to = to_;
    const ptrdiff_t last = num_columns - LANES;
    for (ptrdiff_t r = 0; r < num_rows; r++, from += from_pitch, to += to_pitch) {
        if (last < 0) {
            /* Volatile, or the compiler makes vectors that are longer than the row. */
            for (ptrdiff_t c = 0; c < num_columns; c++)
                *(volatile real *)(to + c) += from[c];
            continue;
        }
        const vec end = load(to + last) + load(from + last);
        for (ptrdiff_t c = 0; c < last; c += LANES)
            store(to + c, load(to + c) + load(from + c));
        store(to + last, end);
    }
}

#endif
