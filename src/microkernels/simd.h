/* One vector type, `vec`, of VECTOR_BYTES bytes of `real`, for the type and the width with which
 * the including file is compiled. Written with the vector extension of GCC and Clang, so that the
 * same source serves every instruction set. */
#ifndef CONVEXT_SIMD_H
#define CONVEXT_SIMD_H

#include <stddef.h>

typedef CONVEXT_REAL real;

enum { LANES = CONVEXT_VECTOR_BYTES / sizeof(real) };

typedef real vec __attribute__((vector_size(CONVEXT_VECTOR_BYTES)));

/* The same vector wherever an element may lie. */
typedef real vec_anywhere
    __attribute__((vector_size(CONVEXT_VECTOR_BYTES), aligned(sizeof(real)), may_alias));

/* Before a loop of at most `n` rounds, which are a compile-time constant: take it apart entirely.
 * Clang leaves the loop as it is when n is larger than the number of rounds. */
#define CONVEXT_PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define UNROLL(n) CONVEXT_PRAGMA(clang loop unroll(full))
#else
#define UNROLL(n) CONVEXT_PRAGMA(GCC unroll n)
#endif

#define CONVEXT_INLINE static inline __attribute__((always_inline))

CONVEXT_INLINE vec load(const real *from)
{
    return (vec)*(const vec_anywhere *)from;
}

CONVEXT_INLINE void store(real *to, vec value)
{
    *(vec_anywhere *)to = (vec_anywhere)value;
}

/* `value - 0` is `value` for every value, so it compiles to a broadcast alone; `0 + value` would
 * not, since it turns -0.0 into 0.0. */
CONVEXT_INLINE vec splat(real value)
{
    return value - (vec){0};
}

/* sums[i] = the sum of the lanes of the i-th vector at `lane`, added by halves. Works in place on
 * memory: taking vectors apart where they are summed up would push them out of the registers. */
static __attribute__((noinline)) void sum_lanes(int num_vectors, real *lane, real *sums)
{
    for (int i = 0; i < num_vectors; i++, lane += LANES) {
        UNROLL(4)
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++)
                lane[j] += lane[j + half];
        sums[i] = lane[0];
    }
}

#endif
