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
    switch (activation) {
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
    default:
        for (ptrdiff_t i = 0; i < count; i++)
            values[i] += bias;
    }
}

/* A gradient, from that with respect to the activation and from the activation itself. */
CONVEXT_INLINE vec through(vec gradient, vec activated, int activation)
{
    switch (activation) {
    case CONVEXT_RELU:
        return choose(activated <= 0, (vec){0}, gradient);
    case CONVEXT_LEAKY_RELU:
        return choose(activated <= 0, gradient * NEGATIVE_SLOPE, gradient);
    case CONVEXT_SIGMOID:
        return gradient * (activated * (1 - activated));
    case CONVEXT_TANH:
        return gradient * (1 - activated * activated);
    default:
        return gradient;
    }
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
    switch (activation) {
    case CONVEXT_RELU:
        return activation_gradient_of(count, gradient, activated, CONVEXT_RELU);
    case CONVEXT_LEAKY_RELU:
        return activation_gradient_of(count, gradient, activated, CONVEXT_LEAKY_RELU);
    case CONVEXT_SIGMOID:
        return activation_gradient_of(count, gradient, activated, CONVEXT_SIGMOID);
    case CONVEXT_TANH:
        return activation_gradient_of(count, gradient, activated, CONVEXT_TANH);
    default:
        return activation_gradient_of(count, gradient, activated, CONVEXT_LINEAR);
    }
}

#endif
