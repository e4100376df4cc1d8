/* The instruction sets that were compiled in, and which of them this CPU has. */
#ifndef CONVEXT_DISPATCH_H
#define CONVEXT_DISPATCH_H

#include "microkernel.h"

/* Number of instruction sets built, from the least to the most capable. */
int convext_num_isas(void);

/* Name of the `isa`-th one: "baseline", "avx2" or "avx512". */
const char *convext_isa_name(int isa);

/* Whether this CPU, and the operating system on it, runs the `isa`-th one. */
int convext_isa_supported(int isa);

/* The micro-kernels of the `isa`-th one for elements of `itemsize` bytes (4 or 8). */
const convext_microkernels *convext_isa_microkernels(int isa, int itemsize);

/* Name and version of the compiler. */
const char *convext_compiler(void);

#endif
