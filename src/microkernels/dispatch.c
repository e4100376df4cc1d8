#include "dispatch.h"

#ifdef CONVEXT_X86_64
#include <cpuid.h>
#endif

extern const convext_microkernels convext_baseline_float, convext_baseline_double;
#ifdef CONVEXT_X86_64
extern const convext_microkernels convext_avx2_float, convext_avx2_double;
extern const convext_microkernels convext_avx512_float, convext_avx512_double;
#endif

static int always(void)
{
    return 1;
}

#ifdef CONVEXT_X86_64
/* Asked of the CPU itself: __builtin_cpu_supports knows nothing where no start-up code of the
 * compiler's own library has asked, as with Zig's on Windows. */
enum {
    /* Of leaf 1, in ecx, and of leaf 7, in ebx. */
    FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28,
    AVX2 = 1u << 5, AVX512F = 1u << 16, AVX512DQ = 1u << 17, AVX512BW = 1u << 30,
    /* What the operating system saves of registers: halves of 32 bytes; of 64, and their masks. */
    SAVES_YMM = 0x06, SAVES_ZMM = 0xe6
};
static const unsigned AVX512VL = 1u << 31; /* more than fits an enum */

/* Whether the operating system saves these registers, and the CPU has all bits of leaves 1 and 7. */
static int has(unsigned saved, unsigned leaf_1, unsigned leaf_7)
{
    unsigned eax, ebx, ecx, edx, xcr0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & (leaf_1 | OSXSAVE)) != (leaf_1 | OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(edx) : "c"(0));
    return (xcr0 & saved) == saved && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)
           && (ebx & leaf_7) == leaf_7;
}

static int has_avx2(void)
{
    return has(SAVES_YMM, AVX | FMA, AVX2);
}

static int has_avx512(void)
{
    return has(SAVES_ZMM, AVX | FMA, AVX2 | AVX512F | AVX512DQ | AVX512BW | AVX512VL);
}
#endif

static const struct {
    const char *name;
    int (*supported)(void);
    const convext_microkernels *for_float, *for_double;
} isas[] = {
    {"baseline", always, &convext_baseline_float, &convext_baseline_double},
#ifdef CONVEXT_X86_64
    {"avx2", has_avx2, &convext_avx2_float, &convext_avx2_double},
    {"avx512", has_avx512, &convext_avx512_float, &convext_avx512_double},
#endif
};

int convext_num_isas(void)
{
    return sizeof isas / sizeof *isas;
}

const char *convext_isa_name(int isa)
{
    return isas[isa].name;
}

int convext_isa_supported(int isa)
{
    return isas[isa].supported();
}

const convext_microkernels *convext_isa_microkernels(int isa, int itemsize)
{
    return itemsize == sizeof(float) ? isas[isa].for_float : isas[isa].for_double;
}

const char *convext_compiler(void)
{
#ifdef __clang__
    return "Clang " __clang_version__;
#else
    return "GCC " __VERSION__;
#endif
}
