/* The case that is being checked, and what it draws at random. */
#ifndef CONVEXT_TEST_CASE_H
#define CONVEXT_TEST_CASE_H

#include <stddef.h>

/* A number from `least` to `most`. */
ptrdiff_t between(ptrdiff_t least, ptrdiff_t most);

/* True once in `n` times. */
int one_in(int n);

/* Whether the numbers of this case are small whole ones. */
extern int whole_numbers;

/* Say what is wrong with this case, and end. */
#ifdef __GNUC__
__attribute__((format(printf, 1, 2), noreturn))
#endif
void fail(const char *format, ...);

#endif
