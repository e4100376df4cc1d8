/* The roots of unity that Fourier transforms multiply by, as near as doubles come. */
#ifndef CONVEXT_ROOTS_H
#define CONVEXT_ROOTS_H

#include <float.h>
#include <math.h>
#include <stddef.h>

/* Cosine and sine of 2 pi k / n where no type is wider than double: of an angle of at most an eighth
 * of a turn, whose rounding error is put right. 0 <= k < n. */
static inline void convext_root_of_doubles(ptrdiff_t k, ptrdiff_t n, double root[2])
{
    const double pi = 3.14159265358979311600, rest_of_pi = 1.2246467991473531772e-16;
    /* In eighths of n, so that turns and mirrors are exact. */
    const ptrdiff_t eighth = 8 * k / n;
    const ptrdiff_t from_axis = 8 * k - (eighth + 1) / 2 * 2 * n;
    const double m = (double)(from_axis < 0 ? -from_axis : from_axis), parts = 4 * (double)n;
    const double product = pi * m, angle = product / parts;
    const double error = (fma(-angle, parts, product) + (fma(pi, m, -product) + rest_of_pi * m))
                         / parts;
    const double cosine = cos(angle) - error * sin(angle);
    const double sine = (sin(angle) + error * cos(angle)) * (from_axis < 0 ? -1 : 1);
    switch ((eighth + 1) / 2 % 4) {
    case 0:
        root[0] = cosine, root[1] = sine;
        break;
    case 1:
        root[0] = -sine, root[1] = cosine;
        break;
    case 2:
        root[0] = -cosine, root[1] = -sine;
        break;
    default:
        root[0] = sine, root[1] = -cosine;
    }
}

/* Real and imaginary part of exp(-2 pi i k / n). */
static inline void convext_root(ptrdiff_t k, ptrdiff_t n, double root[2])
{
#if LDBL_MANT_DIG > DBL_MANT_DIG
    const long double angle = -2 * acosl(-1) * k / n;
    root[0] = (double)cosl(angle);
    root[1] = (double)sinl(angle);
#else
    convext_root_of_doubles(k % n, n, root);
    root[1] = -root[1];
#endif
}

#endif
