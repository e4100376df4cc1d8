/* Memory for the arguments of micro-kernels, between pages that may not be touched: an access beyond
 * an argument ends the program, or changes a canary. */
#ifndef CONVEXT_TEST_MEMORY_H
#define CONVEXT_TEST_MEMORY_H

#include <stddef.h>

/* `bytes` at one end of some pages, at which end is drawn by the caller. */
void *guarded(size_t bytes, int at_the_end);

/* Nobody may write there from now on. */
void protect(void *memory);

/* Free all of it; return whether the canaries around each have survived. */
int free_all(void);

#endif
