"""When convolutions by Fourier transforms are worth it, and how their tiles are cut."""

from convext.base._dispatch cimport microkernels
from convext.base._geometry cimport (
    INPUT_GRADIENT, Array4, Convolution, Geometry, extent_of, result_of, source_of, turned_origin,
    weights_of
)
from convext.base._machine cimport L2_BYTES, L3_BYTES
from convext.base._scratch cimport apart
from convext.base._tasks cimport divide_up, threads_for
from convext.ways._fft_plan cimport Fourier, FourierAxis, Scratch
from convext.ways._ways cimport direct_products, time_of_results

cdef extern from "roots.h":
    void root_of_unity "convext_root"(Py_ssize_t k, Py_ssize_t n, double *root) noexcept nogil

cdef enum:
    NUM_SIZES = 10
    MAX_SIZE = 512
    MAX_PIECE = MAX_SIZE // 2   # pixels under a piece of a kernel along an axis
    NUM_TWIDDLES = 6 * MAX_SIZE
    COLUMNS = 16                # results of a row of a tile are a multiple of this: whole vectors

# What the model of the time believes: a start of a few microseconds.
cdef double START = 200000

# For "auto", kernels of fewer taps are not looked at, nor what takes a few starts the direct way:
# to choose takes its time, too.
cdef Py_ssize_t MIN_TAPS = 16
cdef Py_ssize_t MIN_STARTS = 4

# Transformed pixels of a thread.
cdef Py_ssize_t MAX_VALUE_BYTES = 3 * L3_BYTES // 4
cdef Py_ssize_t MAX_BATCH_BYTES = L2_BYTES


cdef float twiddles_of_float[NUM_TWIDDLES]
cdef double twiddles_of_double[NUM_TWIDDLES]


cdef void fill_twiddles(Py_ssize_t size) noexcept:
    """Fill in the roots of unity for `size` rows, twice as many, and so on."""
    cdef Py_ssize_t t, k, power
    while size <= MAX_SIZE:
        t = 9 * (size // 2 - 2)
        for k in range(size // 4):
            for power in range(1, 4):
                root_of_unity(k * power, size, &twiddles_of_double[t])
                twiddles_of_float[t] = <float> twiddles_of_double[t]
                twiddles_of_float[t + 1] = <float> twiddles_of_double[t + 1]
                t += 2
        size *= 2


fill_twiddles(4)
fill_twiddles(12)


cdef inline Py_ssize_t piece_of(Py_ssize_t extent) noexcept nogil:
    """Pixels under a piece of a kernel along an axis."""
    return divide_up(extent, divide_up(extent, MAX_PIECE))


cdef FourierAxis axis_of(
    bint swapped, Py_ssize_t taps, Py_ssize_t dilation, Py_ssize_t stride, Py_ssize_t padding,
    Py_ssize_t out
) noexcept nogil:
    cdef FourierAxis axis
    axis.taps = taps
    axis.dilation = dilation
    axis.extent = extent_of(taps, dilation)
    axis.pieces = divide_up(axis.extent, MAX_PIECE)
    axis.piece = piece_of(axis.extent)
    axis.origin = turned_origin(taps, dilation, padding) if swapped else -padding
    axis.spread = stride if swapped else 1
    axis.cell = max(<Py_ssize_t> 1, (axis.piece // axis.spread + 1) // 2)
    axis.step = 1 if swapped else stride
    axis.out = (out - 1) * axis.step + 1
    axis.size = axis.results = axis.tiles = 0
    return axis


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    if convolution.asked:
        return NULL
    if kernels.h * kernels.w < MIN_TAPS:
        return "transforms of kernels of so few taps do not pay"
    if geometry.dilation_h > 1 or geometry.dilation_w > 1:
        return "what dilated kernels see of outliers is not known"
    if convolution.operation == INPUT_GRADIENT and (
        piece_of(kernels.h) < geometry.stride_h or piece_of(kernels.w) < geometry.stride_w
    ):
        return "some windows would hold no output gradient"
    if direct_products(convolution) < MIN_STARTS * START:
        return "there is too little to compute"
    return NULL


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    """Cut the tiles, and return how long they take.

    Beside the direct way, that was found where strides end with the rows: a last one that is
    shorter adds to its products, and here as much.
    """
    cdef Fourier *fourier = <Fourier *> plan
    cdef Py_ssize_t stride_h = convolution.geometry.stride_h
    cdef Py_ssize_t stride_w = convolution.geometry.stride_w
    begin_plan(fourier, convolution)
    choose_sizes(fourier)
    return fourier.time * (
        <double> divide_up(fourier.rows.out, stride_h) * stride_h / fourier.rows.out
        * divide_up(fourier.columns.out, stride_w) * stride_w / fourier.columns.out
    ) + time_of_results(convolution)


cdef bint settles(const Convolution *convolution) noexcept nogil:
    """What shifted sums are said to take was compared with the direct way alone."""
    return True


cdef void begin_plan(Fourier *plan, const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Array4 *result = result_of(convolution)
    plan.micro = microkernels(convolution.itemsize)
    plan.itemsize = convolution.itemsize
    plan.twiddles = (
        <const void *> twiddles_of_float if plan.itemsize == sizeof(float)
        else <const void *> twiddles_of_double
    )
    plan.convolution = convolution
    plan.source = source_of(convolution)[0]
    plan.groups = geometry.groups
    plan.kernels = result.c // plan.groups
    plan.channels = plan.source.c // plan.groups
    plan.swapped = convolution.operation == INPUT_GRADIENT
    plan.weights = weights_of(kernels, plan.groups, plan.swapped)
    plan.rows = axis_of(
        plan.swapped, kernels.h, geometry.dilation_h, geometry.stride_h, geometry.padding_top,
        result.h
    )
    plan.columns = axis_of(
        plan.swapped, kernels.w, geometry.dilation_w, geometry.stride_w, geometry.padding_left,
        result.w
    )
    plan.planes = plan.channels * plan.rows.pieces * plan.columns.pieces
    plan.bands = NULL
    plan.unfit = NULL


cdef void finish_plan(Fourier *plan, const Convolution *convolution) noexcept nogil:
    cdef Scratch *layout = &plan.layout
    plan.squares_size = plan.columns.size * divide_up(
        divide_up(plan.rows.size, plan.rows.spread), plan.rows.cell
    )
    plan.num_threads = threads_for(
        direct_products(convolution), plan.source.n * plan.groups * plan.kernels * plan.pairs,
        convolution.num_threads
    )
    layout.strip = 0
    layout.panel = 2 * plan.rows.size * plan.micro.lanes
    layout.values = layout.panel + 2 * plan.rows.size * plan.columns.size
    layout.sums = layout.values + plan.batch * plan.block * plan.value_size
    layout.squares = layout.sums + plan.batch * plan.value_size
    layout.size = layout.squares + (0 if convolution.asked else 2 * plan.squares_size)


# What the pixels of a tile along an axis may be, and the radix-2 steps that each counts as in the
# time of a transform.
cdef Py_ssize_t *SIZES = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512]
cdef double *LEVELS = [4, 5, 5.8, 6, 6.6, 7, 8, 8, 8.6, 9]


cdef bint cut_axis(FourierAxis *axis, Py_ssize_t size, Py_ssize_t multiple) noexcept nogil:
    """Cut an axis into tiles of `size` pixels; False where these are too small."""
    cdef Py_ssize_t results = size - axis.piece + 1
    if results < 1:
        return False
    if results > multiple:
        results = results // multiple * multiple
    axis.size = size
    axis.tiles = divide_up(axis.out, results)
    axis.results = min(results, divide_up(divide_up(axis.out, axis.tiles), multiple) * multiple)
    return True


cdef void choose_sizes(Fourier *plan) noexcept nogil:
    """Cut the output into the tiles that take the least time, see `time_of`."""
    cdef FourierAxis rows, columns
    cdef double time
    cdef Py_ssize_t i, j
    plan.time = -1
    for i in range(NUM_SIZES):
        if not cut_axis(&plan.rows, SIZES[i], 1):
            continue
        for j in range(NUM_SIZES):
            if not cut_axis(&plan.columns, SIZES[j], COLUMNS):
                continue
            cut_planes(plan)
            time = time_of(plan, LEVELS[i] + LEVELS[j])
            if plan.time < 0 or time < plan.time:
                plan.time, rows, columns = time, plan.rows, plan.columns
    plan.rows = rows
    plan.columns = columns
    cut_planes(plan)


cdef inline void cut_planes(Fourier *plan) noexcept nogil:
    cdef Py_ssize_t bytes
    plan.value_size = apart(2 * plan.rows.size * plan.columns.size, plan.itemsize)
    bytes = plan.value_size * <Py_ssize_t> plan.itemsize
    plan.block = min(plan.planes, max(<Py_ssize_t> 1, MAX_VALUE_BYTES // bytes))
    plan.pairs = divide_up(plan.rows.tiles * plan.columns.tiles, 2)
    # Where kernels come from far away, they are fetched for several pairs.
    plan.batch = 1
    if plan.planes * plan.kernels * bytes > L2_BYTES / 2:
        while plan.batch < 4 and 2 * plan.batch <= plan.pairs and (
            2 * plan.batch * plan.block * bytes <= MAX_BATCH_BYTES
        ):
            plan.batch *= 2


cdef double time_of(const Fourier *plan, double levels) noexcept nogil:
    """How long the plan takes, in multiplications of the direct way; a tenth is added.

    Fitted to measurements: docs/fft.md.
    """
    cdef double area = plan.rows.size * plan.columns.size
    # Two threads are not to wait for an odd one.
    cdef Py_ssize_t odd = plan.source.n * plan.groups * plan.pairs % 2
    cdef double pairs = plan.source.n * <double> plan.pairs + 0.5 * odd / plan.groups
    cdef double plane_bytes = plan.value_size * plan.itemsize
    cdef double kernel_bytes = plane_bytes * plan.planes * plan.kernels
    cdef double forward = 42 + 1.8 * levels
    cdef double back = 44 + 0.3 * levels
    cdef double kernel = 3.2 * levels
    cdef double product = 8.7
    if plane_bytes > L2_BYTES:
        forward *= 1.4
        back *= 1.4
    # The kernels come from further away.
    if kernel_bytes * plan.groups > L3_BYTES:
        kernel += 30
    if kernel_bytes > L3_BYTES / 2:
        product = 17
    return 1.1 * (START + area * plan.groups * (
        (pairs * forward + plan.kernels * kernel) * plan.planes
        + pairs * plan.kernels * (
            (plan.planes - 1) * product + divide_up(plan.planes, plan.block) * back
        )
    ))
