"""The direct way computes everything, and the rows that are not safe for others."""

from convext.base._geometry cimport FORWARD, INPUT_GRADIENT, Convolution
from convext.base._interrupt cimport Interrupt, perform, stopped
from convext.ways._bands cimport Bands, Region, next_region, rows_of, samples_of
from convext.ways._forward cimport (
    convolve_directly, convolve_with_kept, keep_directly, measure_directly
)
from convext.ways._input_gradient cimport gather_directly, measure_gathering
from convext.ways._ways cimport Needs, Way, direct_products, time_of_results


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    return NULL


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    return direct_products(convolution) + time_of_results(convolution)


cdef int compute_directly(const void *described, Interrupt *interrupt) noexcept nogil:
    if (<const Convolution *> described).operation == INPUT_GRADIENT:
        return gather_directly(described, interrupt)
    return convolve_directly(described, interrupt)


cdef str name_of(const Convolution *convolution):
    return "an input gradient" if convolution.operation == INPUT_GRADIENT else "a convolution"


cdef bint run(const Convolution *convolution, void *plan, dict kept) except -1:
    if kept is not None:
        convolve_with_kept(convolution, kept)
    else:
        perform(name_of(convolution), compute_directly, convolution)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    keep_directly(convolution, kept)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    if convolution.operation == INPUT_GRADIENT:
        measure_gathering(convolution, needs)
    else:
        measure_directly(convolution, needs)
    return True


cdef Way direct_way() noexcept:
    return Way("direct", objection, time, NULL, NULL, run, keep, measure)


cdef Convolution part_of(
    const Convolution *convolution, const Region *region
) noexcept nogil:
    """The part whose results are a region: their convolution, or input gradient."""
    cdef Convolution part = convolution[0]
    cdef size_t itemsize = convolution.itemsize
    if convolution.operation == FORWARD:
        part.images = samples_of(&convolution.images, region, itemsize)
        part.outputs = rows_of(&convolution.outputs, region, itemsize)
        part.geometry.padding_top -= region.top * part.geometry.stride_h
    else:
        part.images = rows_of(&convolution.images, region, itemsize)
        part.outputs = samples_of(&convolution.outputs, region, itemsize)
        part.geometry.padding_top += region.top
    return part


cdef struct MarkedBands:
    const Bands *bands
    const Convolution *convolution


cdef int compute_regions(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef const MarkedBands *marked = <const MarkedBands *> work
    cdef Region region
    cdef Convolution part
    cdef int status = 0
    region.next = 0
    while status == 0 and not stopped(interrupt) and next_region(marked.bands, &region):
        part = part_of(marked.convolution, &region)
        status = compute_directly(&part, interrupt)
    return status


cdef int compute_bands(const Convolution *convolution, const Bands *bands) except -1:
    cdef MarkedBands marked = MarkedBands(bands, convolution)
    return perform(name_of(convolution), compute_regions, &marked) if bands.any else 0
