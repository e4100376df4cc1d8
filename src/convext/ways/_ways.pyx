"""The choice between the ways of a list: the least predicted time of those that apply."""

from convext.base._geometry cimport Convolution, check_number


cdef int choose(
    const Ways *ways, const Convolution *convolution, int passed_over, void **plan
) noexcept nogil:
    """Return the way to take, whose plan is begun; `passed_over` has a bit for each that is not."""
    cdef char *free_plan = ways.plans + ways.plan_size
    cdef int i, best = ways.count - 1
    cdef double time, least = ways.way[best].time(convolution, ways.plans)
    plan[0] = ways.plans
    for i in range(ways.count - 1):
        if passed_over >> i & 1 or ways.way[i].objection(convolution) != NULL:
            continue
        time = ways.way[i].time(convolution, free_plan)
        if time > least:
            continue
        best, least = i, time
        plan[0] = free_plan
        free_plan = ways.plans if free_plan != ways.plans else ways.plans + ways.plan_size
        if ways.way[i].settles != NULL and ways.way[i].settles(convolution):
            break
    return best


cdef object refusal(const Way *way, const Convolution *convolution, const char *reason):
    cdef str name = way.name.decode(), why = reason.decode()
    geometry = convolution.geometry
    return ValueError(
        f"algorithm {name!r} does not apply: {why}; got kernels of "
        f"{convolution.kernels.h}x{convolution.kernels.w}, "
        f"stride {(geometry.stride_h, geometry.stride_w)}, "
        f"dilation {(geometry.dilation_h, geometry.dilation_w)} and groups {geometry.groups}"
    )


cdef int compute(
    const Ways *ways, Convolution *convolution, int algorithm, dict kept, bint only_keep
) except -1:
    cdef int i = algorithm - 1, passed_over = 0
    cdef void *plan = ways.plans
    cdef const Way *way = &ways.way[max(0, i)]
    check_number("algorithm", algorithm, ways.count)
    convolution.asked = algorithm > 0
    if convolution.asked and way.objection(convolution) != NULL:
        raise refusal(way, convolution, way.objection(convolution))
    if convolution.outputs.n == 0:
        return 0
    while True:
        if convolution.asked:
            way.time(convolution, plan)
        else:
            i = choose(ways, convolution, passed_over, &plan)
            way = &ways.way[i]
        if only_keep:
            if way.keep == NULL or way.keep(convolution, plan, kept):
                return 0
        elif way.run(convolution, plan, kept):
            return 0
        if convolution.asked:
            raise refusal(way, convolution, way.condition(convolution))
        passed_over |= 1 << i


cdef tuple names_of(const Way *ways, int count):
    return tuple([ways[i].name.decode() for i in range(count)])


cdef str text(const char *characters):
    return None if characters == NULL else characters.decode()


cdef tuple explain_ways(const Ways *ways, Convolution *convolution):
    cdef void *plan = ways.plans
    cdef const Way *way
    cdef const char *why            # "auto" does not take it,
    cdef const char *reason         # and nobody can
    cdef const char *condition
    cdef Needs needs
    cdef double time = 0
    cdef int i, passed_over = 0
    cdef list rows = []
    for i in range(ways.count):
        way = &ways.way[i]
        convolution.asked = False
        why = way.objection(convolution)
        convolution.asked = why != NULL
        reason = way.objection(convolution) if convolution.asked else NULL
        if reason == NULL:
            time = way.time(convolution, plan)
        condition = way.condition(convolution) if way.condition != NULL else NULL
        if condition != NULL:
            if convolution.kernels.data == NULL:
                passed_over |= 1 << i
                why = condition if why == NULL else why
            elif not way.keep(convolution, plan, {}):
                passed_over |= 1 << i
                reason = condition
        if reason != NULL:
            rows.append((text(way.name), False, text(reason), None, 0, 0, 0))
            continue
        way.measure(convolution, plan, &needs)
        rows.append((
            text(way.name), True, text(why), time, needs.num_threads, needs.of_thread, needs.shared
        ))
    convolution.asked = False
    return rows, choose(ways, convolution, passed_over, &plan)
