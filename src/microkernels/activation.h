/* Activations of the layers of a network, and their gradients. */
#ifndef CONVEXT_ACTIVATION_H
#define CONVEXT_ACTIVATION_H

#include "rows.h"
#include "simd.h"

#include <math.h>

/* The activations, in the order of their numbers; Python's names are the same in small letters. All
 * but the linear one, which is the first, have a slope that follows from their value. From SIGMOID on
 * they call the mathematical library for each element. A new one is named here, and has a case in
 * `value_of` or `element_of`, and in `through`. */
#define ACTIVATIONS(X) X(LINEAR) X(RELU) X(LEAKY_RELU) X(SIGMOID) X(TANH)

#define NUMBER(name) name,
#define NAME(name) #name " "
enum activation { ACTIVATIONS(NUMBER) };
static const char activation_names[] = ACTIVATIONS(NAME);

/* What leaky ReLU multiplies negative values by. */
#define NEGATIVE_SLOPE ((real)0.2)

/* Where `choice` is set `a`, else `b`. */
CONVEXT_INLINE vec choose(mask choice, vec a, vec b)
{
    return (vec)((choice & (mask)a) | (~choice & (mask)b));
}

/* The activation of a vector, or what it is if elements are to be taken one by one. NaN is not below
 * 0 and stays. */
CONVEXT_INLINE vec value_of(vec value, enum activation activation)
{
    switch (activation) {
    case RELU:
        return choose(value < 0, (vec){0}, value);
    case LEAKY_RELU:
        return choose(value < 0, value * NEGATIVE_SLOPE, value);
    default:
        return value;
    }
}

/* The activation of an element. */
CONVEXT_INLINE real element_of(real value, enum activation activation)
{
    const int is_float = sizeof(real) == sizeof(float);
    switch (activation) {
    case SIGMOID:
        return 1 / (1 + (is_float ? expf(-(float)value) : exp(-value)));
    case TANH:
        return is_float ? tanhf((float)value) : tanh(value);
    default:
        return value_of(splat(value), activation)[0];
    }
}

/* A gradient, from that with respect to the activation and from the activation itself. */
CONVEXT_INLINE vec through(vec gradient, vec activated, enum activation activation)
{
    switch (activation) {
    case LINEAR:
        return gradient;
    case RELU:
        return choose(activated <= 0, (vec){0}, gradient);
    case LEAKY_RELU:
        return choose(activated <= 0, gradient * NEGATIVE_SLOPE, gradient);
    case SIGMOID:
        return gradient * (activated * (1 - activated));
    case TANH:
        return gradient * (1 - activated * activated);
    }
    __builtin_unreachable();
}

CONVEXT_INLINE void activate_by(enum activation activation, ptrdiff_t count, real *values,
                                real bias)
{
    ptrdiff_t i = 0;
    if (activation < SIGMOID)
        for (; i + LANES <= count; i += LANES)
            store(values + i, value_of(load(values + i) + splat(bias), activation));
    for (; i < count; i++)
        values[i] = element_of(values[i] + bias, activation);
}

/* In each of the loops that are made of this, the activation is a constant. */
static void activate(ptrdiff_t count, void *values, double bias, int activation)
{
#define CASE(name) \
    case name: \
        activate_by(name, count, values, (real)bias); \
        break;
    switch ((enum activation)activation) {
        ACTIVATIONS(CASE)
    }
#undef CASE
}

/* Vectors that are added up in `real`; their sums are added in double. */
enum { MAX_SUMMED = 64 };

CONVEXT_INLINE double gradient_by(enum activation activation, ptrdiff_t count, real *gradient,
                                  const real *activated)
{
    double total = 0;
    ptrdiff_t i = 0;
    while (i + LANES <= count) {
        const ptrdiff_t end = MIN(count - LANES, i + (MAX_SUMMED - 1) * LANES);
        vec sums = {0};
        for (; i <= end; i += LANES) {
            const vec value = through(load(gradient + i), load(activated + i), activation);
            store(gradient + i, value);
            sums += value;
        }
        total += sum_of_lanes(sums);
    }
    for (; i < count; i++) {
        gradient[i] = through(splat(gradient[i]), splat(activated[i]), activation)[0];
        total += gradient[i];
    }
    return total;
}

static double activation_gradient(ptrdiff_t count, void *gradient, const void *activated,
                                  int activation)
{
#define CASE(name) \
    case name: \
        return gradient_by(name, count, gradient, activated);
    switch ((enum activation)activation) {
        ACTIVATIONS(CASE)
    }
#undef CASE
    __builtin_unreachable();
}

/* Of a row of a channel: its sums. */
typedef struct {
    vec squares, gradients;
} row_sums;

/* One vector: from the sums of products to the gradient, adding to the sums where `counted`. */
CONVEXT_INLINE vec residual_of(vec value, vec target, vec bias, vec scale,
                               enum activation activation, mask counted, row_sums *sums)
{
    value = value_of(value + bias, activation);
    const vec difference = value - target;
    const vec gradient = through(difference * scale, value, activation);
    const vec counted_difference = (vec)((mask)difference & counted);
    sums->squares += counted_difference * counted_difference;
    sums->gradients += (vec)((mask)gradient & counted);
    return gradient;
}

/* As in `residual`, the last vector ends with the row and is computed first. */
CONVEXT_INLINE void residual_of_row(ptrdiff_t num_columns, real *values, const real *target,
                                    vec bias, vec scale, enum activation activation, mask rest,
                                    row_sums *sums)
{
    const mask all = (vec){0} == (vec){0};
    const ptrdiff_t last = num_columns - LANES;
    if (last < 0) {
        real padded[2][LANES] = {{0}};
        copy_part(num_columns, values, padded[0]);
        copy_part(num_columns, target, padded[1]);
        store(padded[0], residual_of(load(padded[0]), load(padded[1]), bias, scale, activation,
                                     rest, sums));
        copy_part(num_columns, padded[0], values);
        return;
    }
    const vec end = residual_of(load(values + last), load(target + last), bias, scale, activation,
                                rest, sums);
    for (ptrdiff_t c = 0; c + LANES <= num_columns; c += LANES)
        store(values + c, residual_of(load(values + c), load(target + c), bias, scale, activation,
                                      all, sums));
    store(values + last, end);
}

CONVEXT_INLINE double residual_by(enum activation activation, ptrdiff_t num_rows,
                                  ptrdiff_t num_columns, real *values, ptrdiff_t pitch,
                                  const real *target, ptrdiff_t target_pitch, double scale,
                                  double bias, double *bias_gradient)
{
    const ptrdiff_t whole = num_columns / LANES * LANES;
    const ptrdiff_t last = num_columns < LANES ? 0 : num_columns - LANES;
    real beyond_whole[LANES];
    double squares = 0;

    for (ptrdiff_t i = 0; i < LANES; i++)
        beyond_whole[i] = last + i >= whole && last + i < num_columns;
    const mask rest = load(beyond_whole) != 0;
    for (ptrdiff_t r = 0; r < num_rows;) {
        const ptrdiff_t end = MIN(num_rows, r + MAX_SUMMED * LANES / num_columns + 1);
        row_sums sums = {{0}, {0}};
        for (; r < end; r++) {
            residual_of_row(num_columns, values, target, splat((real)bias), splat((real)scale),
                            activation, rest, &sums);
            for (ptrdiff_t c = num_columns; c < pitch; c++)
                *(volatile real *)(values + c) = 0;
            values += pitch;
            target += target_pitch;
        }
        squares += sum_of_lanes(sums.squares);
        *bias_gradient += sum_of_lanes(sums.gradients);
    }
    return squares;
}

static double activated_residual(ptrdiff_t num_rows, ptrdiff_t num_columns, void *values,
                                 ptrdiff_t pitch, const void *target, ptrdiff_t target_pitch,
                                 double scale, double bias, int activation,
                                 double *bias_gradient)
{
    if (activation >= SIGMOID)
        for (ptrdiff_t r = 0; r < num_rows; r++)
            activate(num_columns, (real *)values + r * pitch, bias, activation);
#define CASE(name) \
    case name: \
        return residual_by(name, num_rows, num_columns, values, pitch, target, target_pitch, \
                           scale, name < SIGMOID ? bias : 0, bias_gradient);
    switch ((enum activation)activation) {
        ACTIVATIONS(CASE)
    }
#undef CASE
    __builtin_unreachable();
}

#endif
