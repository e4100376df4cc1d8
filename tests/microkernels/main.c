/* Compares every micro-kernel of every instruction set that this CPU has with plain loops:
 *
 *     microkernels [CASES [SEED [NAME]]]
 *
 * Ends with 0 if they agree. A fault is an access beyond an argument. */
#include "case.h"
#include "dispatch.h"
#include "memory.h"
#include "roots.h"
#include "suite.h"

#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Enough that each size of a tile has its turn. */
enum { DEFAULT_CASES = 200 };

int whole_numbers;

static uint64_t seed, state;
static const char *isa_name, *type_name, *checked;
static int turn;

/* splitmix64 */
static uint64_t draw(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

ptrdiff_t between(ptrdiff_t least, ptrdiff_t most)
{
    return least + (ptrdiff_t)(draw() % (uint64_t)(most - least + 1));
}

int one_in(int n)
{
    return between(1, n) == n;
}

static void say_where(void)
{
    printf("%s %s %s, case %d of seed %d: ", isa_name, type_name, checked, turn, (int)seed);
}

void fail(const char *format, ...)
{
    va_list arguments;
    say_where();
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    exit(1);
}

static void fault(int number)
{
    say_where();
    printf("signal %d: an access beyond an argument\n", number);
    fflush(stdout);
    _Exit(2);
}

static void run_suite(const suite *suite, const convext_microkernels *micro, int cases,
                      const char *name)
{
    for (int i = 0; i < suite->count; i++) {
        checked = suite->checks[i].name;
        if (name && strcmp(name, checked))
            continue;
        for (turn = 0; turn < cases; turn++) {
            /* A case does not depend on those before. */
            state = seed * 1000003 + (uint64_t)turn;
            whole_numbers = one_in(2);
            suite->checks[i].check(micro, turn);
            if (!free_all())
                fail("what lies beside an argument has changed");
        }
    }
    printf("%s %s: %d micro-kernels, %d cases of each agree with plain loops\n", isa_name,
           type_name, name ? 1 : suite->count, cases);
}

/* Roots of unity, by both ways of computing them: what they differ by from exact ones. */
static void check_roots(void)
{
    static const ptrdiff_t sizes[] = {4, 8, 12, 16, 24, 96, 384, 512};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (ptrdiff_t k = 0; k < sizes[i]; k++) {
            const ptrdiff_t n = sizes[i];
            const long double angle = 2 * acosl(-1) * k / n;
            double of_doubles[2], root[2];
            convext_root_of_doubles(k, n, of_doubles);
            convext_root(k, n, root);
            /* Where no type is wider, the angle here has rounding errors of its own. */
            const long double bound =
                LDBL_MANT_DIG > DBL_MANT_DIG ? DBL_EPSILON / 2 : 8 * DBL_EPSILON;
            if (fabsl(of_doubles[0] - cosl(angle)) > bound
                || fabsl(of_doubles[1] - sinl(angle)) > bound
                || fabsl(root[0] - cosl(angle)) > bound || fabsl(root[1] + sinl(angle)) > bound) {
                printf("root %td of %td is (%.17g, %.17g) or (%.17g, %.17g)\n", k, n, root[0],
                       -root[1], of_doubles[0], of_doubles[1]);
                exit(1);
            }
        }
    printf("roots of unity: within half of an epsilon\n");
}

int main(int argc, char **argv)
{
    const int cases = argc > 1 ? atoi(argv[1]) : DEFAULT_CASES;
    const char *name = argc > 3 ? argv[3] : NULL;
    seed = argc > 2 ? (uint64_t)atoi(argv[2]) : 0;
    signal(SIGSEGV, fault);
#ifdef SIGBUS
    signal(SIGBUS, fault);
#endif
    printf("%s\n", convext_compiler());
    check_roots();
    for (int isa = 0; isa < convext_num_isas(); isa++) {
        isa_name = convext_isa_name(isa);
        if (!convext_isa_supported(isa)) {
            printf("%s: this CPU does not have it\n", isa_name);
            continue;
        }
        type_name = "float";
        run_suite(&suite_of_float, convext_isa_microkernels(isa, sizeof(float)), cases, name);
        type_name = "double";
        run_suite(&suite_of_double, convext_isa_microkernels(isa, sizeof(double)), cases, name);
    }
    return 0;
}
