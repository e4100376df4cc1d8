/* What the checks of all micro-kernels share: random arguments, and results beside what they should
 * be. Compiled once for each element type, `real`. */
#ifndef CONVEXT_TEST_CHECKS_H
#define CONVEXT_TEST_CHECKS_H

#include "case.h"
#include "memory.h"
#include "microkernel.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef CHECKED_REAL real;
typedef convext_microkernels table;

/* What results should be is computed in the widest type. */
typedef long double wide;

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static const double EPSILON = sizeof(real) == sizeof(float) ? FLT_EPSILON : DBL_EPSILON;

/* Half of the cases have small whole numbers, whose sums are exact in any order; the others have
 * few enough bits that the sum of two is exact. */
static real number(void)
{
    return whole_numbers ? (real)between(-8, 8) : (real)between(-2048, 2048) / 2048;
}

/* How far a sum may be off whose terms' absolute values add up to `magnitude`. */
static double tolerance(wide magnitude)
{
    return whole_numbers ? 0 : (double)(8 * EPSILON * magnitude);
}

static ptrdiff_t rounded_up(ptrdiff_t count, ptrdiff_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

static void *room_for(ptrdiff_t count, size_t itemsize)
{
    return guarded((size_t)count * itemsize, (int)between(0, 1));
}

/* Random elements that nobody may change. */
static const real *input(ptrdiff_t count)
{
    real *elements = room_for(count, sizeof *elements);
    for (ptrdiff_t i = 0; i < count; i++)
        elements[i] = number();
    protect(elements);
    return elements;
}

/* The same, where the elements from `used` on are NaN: they may be read, but do not count. */
static const real *input_with_rest(ptrdiff_t used, ptrdiff_t count)
{
    real *elements = room_for(count, sizeof *elements);
    for (ptrdiff_t i = 0; i < count; i++)
        elements[i] = i < used ? number() : (real)NAN;
    protect(elements);
    return elements;
}

/* Numbers from 0 to `most`, in any order. */
static const ptrdiff_t *offsets(ptrdiff_t count, ptrdiff_t most)
{
    ptrdiff_t *elements = room_for(count, sizeof *elements);
    for (ptrdiff_t i = 0; i < count; i++)
        elements[i] = between(0, most);
    protect(elements);
    return elements;
}

static ptrdiff_t largest(const ptrdiff_t *elements, ptrdiff_t count)
{
    ptrdiff_t most = elements[0];
    for (ptrdiff_t i = 1; i < count; i++)
        most = MAX(most, elements[i]);
    return most;
}

/* What a micro-kernel writes to. */
typedef struct {
    ptrdiff_t count;
    real *at, *before;
    wide *want;
    double *bound; /* how far off it may be; SAME: unchanged, FREE: anything */
} output;

enum { SAME = -1, FREE = -2 };

static output result(ptrdiff_t count)
{
    output out = {count, room_for(count, sizeof(real)), room_for(count, sizeof(real)),
                  room_for(count, sizeof(wide)), room_for(count, sizeof(double))};
    for (ptrdiff_t i = 0; i < count; i++) {
        out.at[i] = out.before[i] = number();
        out.bound[i] = SAME;
    }
    return out;
}

/* Scratch memory. */
static output scratch(ptrdiff_t count)
{
    output out = result(count);
    for (ptrdiff_t i = 0; i < count; i++)
        out.bound[i] = FREE;
    return out;
}

static void want_within(output *out, ptrdiff_t i, wide value, double bound)
{
    out->want[i] = value;
    out->bound[i] = bound;
}

/* A sum of terms whose absolute values add up to `magnitude`. */
static void want(output *out, ptrdiff_t i, wide value, wide magnitude)
{
    want_within(out, i, value, tolerance(magnitude));
}

static void may_change(output *out, ptrdiff_t i)
{
    out->bound[i] = FREE;
}

static int is_near(wide got, wide value, double bound)
{
    return isnan(value) ? isnan(got) : fabsl(got - value) <= bound;
}

static void check(const char *what, const output *out)
{
    for (ptrdiff_t i = 0; i < out->count; i++) {
        if (out->bound[i] == SAME && memcmp(&out->at[i], &out->before[i], sizeof(real)))
            fail("%s[%td] was %g and should stay, but is %g", what, i, (double)out->before[i],
                 (double)out->at[i]);
        if (out->bound[i] >= 0 && !is_near(out->at[i], out->want[i], out->bound[i]))
            fail("%s[%td] is %.17g, but should be %.17g +- %g", what, i, (double)out->at[i],
                 (double)out->want[i], out->bound[i]);
    }
}

static void check_number(const char *what, double got, wide value, double bound)
{
    if (!is_near(got, value, bound))
        fail("%s is %.17g, but should be %.17g +- %g", what, got, (double)value, bound);
}

#endif
