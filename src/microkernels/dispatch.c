#include "dispatch.h"

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
static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
           && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
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
