/* The checks of all micro-kernels, for elements of one type. */
#ifndef CONVEXT_TEST_SUITE_H
#define CONVEXT_TEST_SUITE_H

#include "microkernel.h"

/* Check one case; `turn` counts them, so that all sizes of a tile get their turn. */
typedef struct {
    const char *name;
    void (*check)(const convext_microkernels *micro, int turn);
} named_check;

typedef struct {
    const named_check *checks;
    int count;
} suite;

extern const suite suite_of_float, suite_of_double;

#endif
