/* As many multiply-adds as the processor can do: chains that do not wait for each other, enough of
   them to fill the pipelines of two units, few enough for the registers. */

#if defined __AVX512F__
#define VECTOR_BYTES 64
#elif defined __AVX__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#define CHAINS 12

typedef REAL vector __attribute__((vector_size(VECTOR_BYTES)));

#define LANES ((long)(sizeof(vector) / sizeof(REAL)))

REAL multiply_add(long multiply_adds, REAL factor, REAL summand)
{
    const vector factors = factor - (vector){0}, summands = summand - (vector){0};
    vector sums[CHAINS];

    for (int chain = 0; chain < CHAINS; chain++)
        sums[chain] = summands + (REAL)chain;
    for (long round = 0; round < multiply_adds / (CHAINS * LANES); round++)
        for (int chain = 0; chain < CHAINS; chain++)
            sums[chain] = sums[chain] * factors + summands;

    REAL total = 0;
    for (int chain = 0; chain < CHAINS; chain++)
        for (long lane = 0; lane < LANES; lane++)
            total += sums[chain][lane];
    return total;
}
