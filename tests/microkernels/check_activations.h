/* Checks of activations and of their gradients. */
#ifndef CONVEXT_TEST_CHECK_ACTIVATIONS_H
#define CONVEXT_TEST_CHECK_ACTIVATIONS_H

#include "checks.h"

enum { NUM_ACTIVATIONS = 5 };

/* Whether `name` is that of number `index` in the table. */
static int is_named(const table *micro, int index, const char *name)
{
    const char *names = micro->activations;
    for (; index > 0; index--)
        names = strchr(names, ' ') + 1;
    return strncmp(names, name, strlen(name)) == 0 && names[strlen(name)] == ' ';
}

static wide activated(const table *micro, int activation, wide value)
{
    if (is_named(micro, activation, "RELU"))
        return value < 0 ? 0 : value;
    if (is_named(micro, activation, "LEAKY_RELU"))
        return value < 0 ? 0.2L * value : value;
    if (is_named(micro, activation, "SIGMOID"))
        return 1 / (1 + expl(-value));
    if (is_named(micro, activation, "TANH"))
        return tanhl(value);
    if (!is_named(micro, activation, "LINEAR"))
        fail("there is no check of activation %d", activation);
    return value;
}

/* The slope, where the activation is `value`. */
static wide slope_at(const table *micro, int activation, wide value)
{
    if (is_named(micro, activation, "RELU"))
        return value > 0;
    if (is_named(micro, activation, "LEAKY_RELU"))
        return value > 0 ? 1 : 0.2L;
    if (is_named(micro, activation, "SIGMOID"))
        return value * (1 - value);
    if (is_named(micro, activation, "TANH"))
        return 1 - value * value;
    return 1;
}

/* Numbers here are at most 16. */
static double rounding(void)
{
    return 64 * EPSILON;
}

static void check_activate(const table *micro, int turn)
{
    const int activation = turn % NUM_ACTIVATIONS;
    const ptrdiff_t count = between(1, 5 * micro->lanes);
    const double bias = number();
    output values = result(count);

    if (one_in(4))
        values.at[between(0, count - 1)] = (real)NAN;
    for (ptrdiff_t i = 0; i < count; i++)
        want_within(&values, i, activated(micro, activation, (wide)values.at[i] + bias),
                    rounding());
    micro->activate(count, values.at, bias, activation);
    check("values", &values);
}

static void check_activation_gradient(const table *micro, int turn)
{
    const int activation = turn % NUM_ACTIVATIONS;
    const ptrdiff_t count = one_in(8) ? micro->lanes * between(60, 140) + between(0, 5)
                                      : between(1, 5 * micro->lanes);
    const real *values = input(count);
    output gradient = result(count);
    wide sum = 0, magnitude = 0;

    for (ptrdiff_t i = 0; i < count; i++) {
        const wide slope = slope_at(micro, activation, values[i]);
        sum += gradient.before[i] * slope;
        magnitude += fabsl(gradient.before[i]) * (1 + fabsl(slope));
        want_within(&gradient, i, gradient.before[i] * slope,
                    8 * EPSILON * (double)(fabsl(gradient.before[i]) * (1 + fabsl(slope))));
    }
    const double got = micro->activation_gradient(count, gradient.at, values, activation);
    check("gradient", &gradient);
    check_number("sum", got, sum, 8 * EPSILON * (double)magnitude);
}

static void check_activated_residual(const table *micro, int turn)
{
    const int activation = turn % NUM_ACTIVATIONS;
    const ptrdiff_t rows = between(1, 70), columns = between(1, 5 * micro->lanes);
    const ptrdiff_t pitch = columns + between(0, 5), target_pitch = columns + between(0, 5);
    const double scale = (double)between(1, 64) / 64, bias = number(), before = number();
    const real *target = input((rows - 1) * target_pitch + columns);
    output values = result(rows * pitch);
    wide squares = 0, sum = before, magnitude = fabs(before);
    double bias_gradient = before;

    for (ptrdiff_t i = 0; i < rows * pitch; i++) {
        const ptrdiff_t r = i / pitch, c = i % pitch;
        const wide value = activated(micro, activation, (wide)values.before[i] + bias);
        const wide slope = slope_at(micro, activation, value);
        const wide difference = c < columns ? value - target[r * target_pitch + c] : 0;
        const wide product = difference * scale * slope;
        squares += difference * difference;
        sum += product;
        magnitude += c < columns ? 32 : 0;
        want_within(&values, i, product, c < columns ? 8 * rounding() : 0);
    }
    const double got =
        micro->activated_residual(rows, columns, values.at, pitch, target, target_pitch, scale,
                                  bias, activation, &bias_gradient);
    check("gradient", &values);
    check_number("sum of squares", got, squares, 8 * EPSILON * (double)(squares + magnitude));
    check_number("bias gradient", bias_gradient, sum, 8 * EPSILON * (double)magnitude);
}

#endif
