/* One vector type, `vec`, of CONVEXT_LANES elements of `real`, for the type and the width with which
 * the including file is compiled. Written with the vector extension of GCC and Clang, so that the
 * same source serves every instruction set. */
#ifndef CONVEXT_SIMD_H
#define CONVEXT_SIMD_H

#include <stddef.h>

typedef CONVEXT_REAL real;

enum { LANES = CONVEXT_LANES };

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

typedef real vec __attribute__((vector_size(CONVEXT_LANES * sizeof(real))));

/* The same vector wherever an element may lie. */
typedef real vec_anywhere
    __attribute__((vector_size(CONVEXT_LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

/* What a comparison of vectors gives: in each lane all bits set, or none. */
typedef __typeof__((vec){0} != (vec){0}) mask;

/* Before a loop of at most `n` rounds, which are a compile-time constant: take it apart entirely.
 * Clang leaves the loop as it is when n is larger than the number of rounds. */
#define CONVEXT_PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define UNROLL(n) CONVEXT_PRAGMA(clang loop unroll(full))
#else
#define UNROLL(n) CONVEXT_PRAGMA(GCC unroll n)
#endif

#define CONVEXT_INLINE static inline __attribute__((always_inline))

/* Where GCC looks into a function that it calls, and finds no wide registers there, it leaves their
 * upper halves in use, before the call and for good: that makes all SSE code that follows, in
 * whatever library, two to three times slower. */
#ifdef __clang__
#define CONVEXT_NO_INLINE __attribute__((noinline))
#else
#define CONVEXT_NO_INLINE __attribute__((noipa))
#endif

/* The compiler does not see where this leads, and so keeps no pointer for every step of a loop: there
 * are not registers enough. */
CONVEXT_INLINE const real *step_by(const real *pointer, ptrdiff_t stride)
{
    pointer += stride;
    __asm__("" : "+r"(pointer));
    return pointer;
}

CONVEXT_INLINE vec load(const real *from)
{
    return (vec)*(const vec_anywhere *)from;
}

/* Used more than once: without this, GCC loads it anew for every use, and a load across two cache
 * lines takes longer than a multiply-add. */
CONVEXT_INLINE vec load_once(const real *from)
{
    vec value = load(from);
#if defined(__x86_64__)
    __asm__("" : "+v"(value));
#elif defined(__aarch64__)
    __asm__("" : "+w"(value));
#endif
    return value;
}

CONVEXT_INLINE void store(real *to, vec value)
{
    *(vec_anywhere *)to = (vec_anywhere)value;
}

/* `count` elements, fewer than LANES, in pieces whose sizes the compiler knows. */
CONVEXT_INLINE void copy_part(ptrdiff_t count, const real *from, real *to)
{
    UNROLL(4)
    for (int n = LANES / 2; n > 0; n /= 2)
        if (count & n) {
            __builtin_memcpy(to, from, n * sizeof(real));
            from += n;
            to += n;
        }
}

/* `value - 0` is `value` for every value, so it compiles to a broadcast alone; `0 + value` would
 * not, since it turns -0.0 into 0.0. */
CONVEXT_INLINE vec splat(real value)
{
    return value - (vec){0};
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) \
    __builtin_shuffle(a, b, (__typeof__((vec){0} < (vec){0})){__VA_ARGS__})
#endif

/* Of each pair of elements of `a` the other one; of each four the other pair, and of each eight the
 * other four, if a vector has eight. Every other element of `a` and `b`; the same of `b` from its
 * second element on; and the elements of the lower, or upper, halves of `a` and `b` in turns. */
#if CONVEXT_LANES == 2
#define NEIGHBOURS(a) SHUFFLE(a, a, 1, 0)
#define OTHER_PAIRS(a) SHUFFLE(a, a, 0, 1)
#define OTHER_FOURS(a) SHUFFLE(a, a, 0, 1)
#define EVERY_OTHER(a, b) SHUFFLE(a, b, 0, 2)
#define EVERY_OTHER_ODD(a, b) SHUFFLE(a, b, 0, 3)
#define ALTERNATE_LOW(a, b) SHUFFLE(a, b, 0, 2)
#define ALTERNATE_HIGH(a, b) SHUFFLE(a, b, 1, 3)
#elif CONVEXT_LANES == 4
#define NEIGHBOURS(a) SHUFFLE(a, a, 1, 0, 3, 2)
#define OTHER_PAIRS(a) SHUFFLE(a, a, 2, 3, 0, 1)
#define OTHER_FOURS(a) SHUFFLE(a, a, 0, 1, 2, 3)
#define EVERY_OTHER(a, b) SHUFFLE(a, b, 0, 2, 4, 6)
#define EVERY_OTHER_ODD(a, b) SHUFFLE(a, b, 0, 2, 5, 7)
#define ALTERNATE_LOW(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define ALTERNATE_HIGH(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#elif CONVEXT_LANES == 8
#define NEIGHBOURS(a) SHUFFLE(a, a, 1, 0, 3, 2, 5, 4, 7, 6)
#define OTHER_PAIRS(a) SHUFFLE(a, a, 2, 3, 0, 1, 6, 7, 4, 5)
#define OTHER_FOURS(a) SHUFFLE(a, a, 4, 5, 6, 7, 0, 1, 2, 3)
#define EVERY_OTHER(a, b) SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define EVERY_OTHER_ODD(a, b) SHUFFLE(a, b, 0, 2, 4, 6, 9, 11, 13, 15)
#define ALTERNATE_LOW(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ALTERNATE_HIGH(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif CONVEXT_LANES == 16
#define NEIGHBOURS(a) SHUFFLE(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#define OTHER_PAIRS(a) SHUFFLE(a, a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define OTHER_FOURS(a) SHUFFLE(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define EVERY_OTHER(a, b) \
    SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define EVERY_OTHER_ODD(a, b) \
    SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31)
#define ALTERNATE_LOW(a, b) \
    SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ALTERNATE_HIGH(a, b) \
    SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#endif

/* Swap the rows and the columns of a square. Each round shuffles the upper half of the rows into
 * the lower half, like cards; after log2(LANES) rounds every element is in its place. */
CONVEXT_INLINE void transpose(vec square[LANES])
{
    UNROLL(4)
    for (int round = 1; round < LANES; round *= 2) {
        vec shuffled[LANES];
        UNROLL(8)
        for (int i = 0; i < LANES / 2; i++) {
            shuffled[2 * i] = ALTERNATE_LOW(square[i], square[i + LANES / 2]);
            shuffled[2 * i + 1] = ALTERNATE_HIGH(square[i], square[i + LANES / 2]);
        }
        UNROLL(16)
        for (int i = 0; i < LANES; i++)
            square[i] = shuffled[i];
    }
}

/* sums[i] = the sum of the lanes of the i-th vector at `lane`, added by halves. Works in place on
 * memory: taking vectors apart where they are summed up would push them out of the registers. */
static CONVEXT_NO_INLINE void sum_lanes(int num_vectors, real *lane, real *sums)
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
