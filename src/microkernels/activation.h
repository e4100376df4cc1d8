/* Activations of the layers of a network, and their gradients. Included by microkernel.c. */
#ifndef CONVEXT_ACTIVATION_H
#define CONVEXT_ACTIVATION_H

#include <math.h>

/* What leaky ReLU multiplies negative values by. */
#define NEGATIVE_SLOPE ((real)CONVEXT_NEGATIVE_SLOPE)

CONVEXT_INLINE real sigmoid(real value)
{
    return 1 / (1 + (sizeof(real) == sizeof(float) ? expf(-(float)value) : exp(-value)));
}

CONVEXT_INLINE real tangent(real value)
{
    return sizeof(real) == sizeof(float) ? tanhf((float)value) : tanh(value);
}

/* Where `choose` is set `a`, else `b`. */
CONVEXT_INLINE vec choose(mask choice, vec a, vec b)
{
    return (vec)((choice & (mask)a) | (~choice & (mask)b));
}

/* NaN is not below 0 and stays. */
CONVEXT_INLINE void rectify(ptrdiff_t count, real *values, real bias, int leaky)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vec value = load(values + i) + splat(bias);
        store(values + i, choose(value < 0, leaky ? value * NEGATIVE_SLOPE : (vec){0}, value));
    }
    for (; i < count; i++) {
        const real value = values[i] + bias;
        values[i] = value < 0 ? leaky ? value * NEGATIVE_SLOPE : 0 : value;
    }
}

static void activate(ptrdiff_t count, void *values_, double bias_, int activation)
{
    real *values = values_;
    const real bias = (real)bias_;
    switch ((enum convext_activation)activation) {
    case CONVEXT_RELU:
        rectify(count, values, bias, 0);
        break;
    case CONVEXT_LEAKY_RELU:
        rectify(count, values, bias, 1);
        break;
    case CONVEXT_SIGMOID:
        for (ptrdiff_t i = 0; i < count; i++)
            values[i] = sigmoid(values[i] + bias);
        break;
    case CONVEXT_TANH:
        for (ptrdiff_t i = 0; i < count; i++)
            values[i] = tangent(values[i] + bias);
        break;
    case CONVEXT_LINEAR:
        for (ptrdiff_t i = 0; i < count; i++)
            values[i] += bias;
    }
}

/* A gradient, from that with respect to the activation and from the activation itself. */
CONVEXT_INLINE vec through(vec gradient, vec activated, int activation)
{
    switch ((enum convext_activation)activation) {
    case CONVEXT_RELU:
        return choose(activated <= 0, (vec){0}, gradient);
    case CONVEXT_LEAKY_RELU:
        return choose(activated <= 0, gradient * NEGATIVE_SLOPE, gradient);
    case CONVEXT_SIGMOID:
        return gradient * (activated * (1 - activated));
    case CONVEXT_TANH:
        return gradient * (1 - activated * activated);
    case CONVEXT_LINEAR:
        return gradient;
    }
    __builtin_unreachable();
}

/* Vectors that are added up in `real`; their sums are added in double. */
enum { MAX_SUMMED = 64 };

CONVEXT_INLINE double activation_gradient_of(ptrdiff_t count, real *gradient,
                                             const real *activated, int activation)
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

/* The activation is a constant within each loop. */
static double activation_gradient(ptrdiff_t count, void *gradient, const void *activated,
                                  int activation)
{
    switch ((enum convext_activation)activation) {
    case CONVEXT_RELU:
        return activation_gradient_of(count, gradient, activated, CONVEXT_RELU);
    case CONVEXT_LEAKY_RELU:
        return activation_gradient_of(count, gradient, activated, CONVEXT_LEAKY_RELU);
    case CONVEXT_SIGMOID:
        return activation_gradient_of(count, gradient, activated, CONVEXT_SIGMOID);
    case CONVEXT_TANH:
        return activation_gradient_of(count, gradient, activated, CONVEXT_TANH);
    case CONVEXT_LINEAR:
        return activation_gradient_of(count, gradient, activated, CONVEXT_LINEAR);
    }
    __builtin_unreachable();
}

/* Of a row of a channel: its sums. */
typedef struct {
    vec squares, gradients;
} row_sums;

/* One vector: from the sums of products to the gradient, adding to the sums where `counted`. */
CONVEXT_INLINE vec residual_of(vec value, vec target, vec bias, vec scale, int activation,
                               mask counted, row_sums *sums)
{
    value += bias;
    if (activation == CONVEXT_RELU)
        value = choose(value < 0, (vec){0}, value);
    if (activation == CONVEXT_LEAKY_RELU)
        value = choose(value < 0, value * NEGATIVE_SLOPE, value);
    const vec difference = value - target;
    const vec gradient = through(difference * scale, value, activation);
    const vec counted_difference = (vec)((mask)difference & counted);
    sums->squares += counted_difference * counted_difference;
    sums->gradients += (vec)((mask)gradient & counted);
    return gradient;
}

/* As in `residual`, the last vector ends with the row and is computed first. */
CONVEXT_INLINE void residual_of_row(ptrdiff_t num_columns, real *values, const real *target,
                                    vec bias, vec scale, int activation, mask rest,
                                    row_sums *sums)
{
    const mask all = (vec){0} == (vec){0};
    const ptrdiff_t last = num_columns - LANES;
    if (last < 0) {
        real padded[2][LANES] = {{0}};
        for (ptrdiff_t c = 0; c < num_columns; c++) {
            padded[0][c] = values[c];
            padded[1][c] = target[c];
        }
        store(padded[0], residual_of(load(padded[0]), load(padded[1]), bias, scale, activation,
                                     rest, sums));
        for (ptrdiff_t c = 0; c < num_columns; c++)
            values[c] = padded[0][c];
        return;
    }
    const vec end = residual_of(load(values + last), load(target + last), bias, scale, activation,
                                rest, sums);
    for (ptrdiff_t c = 0; c + LANES <= num_columns; c += LANES)
        store(values + c, residual_of(load(values + c), load(target + c), bias, scale, activation,
                                      all, sums));
    store(values + last, end);
}

CONVEXT_INLINE double residual_of_rows(ptrdiff_t num_rows, ptrdiff_t num_columns, real *values,
                                       ptrdiff_t pitch, const real *target,
                                       ptrdiff_t target_pitch, double scale, double bias,
                                       int activation, double *bias_gradient)
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

/* The activation is a constant within each loop. */
static double activated_residual(ptrdiff_t num_rows, ptrdiff_t num_columns, void *values,
                                 ptrdiff_t pitch, const void *target, ptrdiff_t target_pitch,
                                 double scale, double bias, int activation,
                                 double *bias_gradient)
{
#define OF_ROWS(bias, activation)                                                               \
    residual_of_rows(num_rows, num_columns, values, pitch, target, target_pitch, scale, bias,   \
                     activation, bias_gradient)
    if (activation == CONVEXT_SIGMOID || activation == CONVEXT_TANH)
        for (ptrdiff_t r = 0; r < num_rows; r++)
            activate(num_columns, (real *)values + r * pitch, bias, activation);
    switch ((enum convext_activation)activation) {
    case CONVEXT_RELU:
        return OF_ROWS(bias, CONVEXT_RELU);
    case CONVEXT_LEAKY_RELU:
        return OF_ROWS(bias, CONVEXT_LEAKY_RELU);
    case CONVEXT_SIGMOID:
        return OF_ROWS(0, CONVEXT_SIGMOID);
    case CONVEXT_TANH:
        return OF_ROWS(0, CONVEXT_TANH);
    case CONVEXT_LINEAR:
        return OF_ROWS(bias, CONVEXT_LINEAR);
    }
    __builtin_unreachable();
#undef OF_ROWS
}

#endif
