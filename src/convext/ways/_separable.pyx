"""Convolution with separable kernels in two passes: down the columns, then along the rows.

A strip of a few rows is taken through both before the next, so that what lies between them stays in
the caches. Kernels of one row or one column need one pass.
"""

from libc.math cimport fabs

from convext.base._dispatch cimport CHAIN, microkernels
from convext.base._geometry cimport (
    INPUT_GRADIENT, Array4, Convolution, Geometry, real, result_of, source_of, windows_of
)
from convext.base._interrupt cimport Interrupt
from convext.base._machine cimport L1_BYTES, LAID_OUT_BYTES
from convext.base._scratch cimport aligned_array, aligned_size, apart, data_of
from convext.base._tasks cimport Task, Tasks, divide_up, perform_tasks, tasks_of, threads_for
from convext.ways._tile cimport Positions, all_inside, copy_rectangle, positions
from convext.ways._ways cimport Needs, Way

cdef enum:
    STRIP = 4           # rows that are computed at once, at most

# A row of a tile should stay in the L1 cache.
cdef Py_ssize_t MAX_ROW_BYTES = L1_BYTES // 2

# A pass along the rows takes twice the time of one down the columns, since its loads cross cache
# lines. One pass takes what its products do directly, but RESULT_OF_ONE_PASS for a result instead
# of RESULT; two passes take their products alone. But first the factors are to be found.
cdef Py_ssize_t ROW_FACTOR = 2
cdef Py_ssize_t RESULT_OF_ONE_PASS = 2
cdef Py_ssize_t START = 150000

# Results of a kernel that are worth a task.
cdef Py_ssize_t MIN_PLANE = 256

# Beyond this Fourier transforms take less time.
cdef Py_ssize_t MAX_PRODUCTS = 130


# ---------------------------------------------------------------- the plan


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Array4 *result = result_of(convolution)
    if kernels.c > 1:
        return "it is for kernels of one channel"
    if (
        geometry.stride_h > 1 or geometry.stride_w > 1
        or geometry.dilation_h > 1 or geometry.dilation_w > 1
    ):
        return "it is for stride 1 and kernels that are not dilated"
    if convolution.operation == INPUT_GRADIENT and kernels.n > geometry.groups:
        return "each channel may have one kernel"
    if kernels.h * kernels.w == 1 or max(kernels.h, kernels.w) > CHAIN:
        return "it is for kernels of more than one tap, and of 256 taps along an axis at most"
    if result.w < microkernels(convolution.itemsize).lanes:
        return "its results are narrower than a vector"
    if convolution.asked:
        return NULL
    if products_of(kernels) > MAX_PRODUCTS:
        return "for such kernels Fourier transforms take less time"
    if result.h * result.w < MIN_PLANE:
        return "there are so few results"
    return NULL


cdef Py_ssize_t products_of(const Array4 *kernels) noexcept nogil:
    """The products of a result in both passes, as many as take their time."""
    return (kernels.h if kernels.h > 1 else 0) + (ROW_FACTOR * kernels.w if kernels.w > 1 else 0)


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Array4 *result = result_of(convolution)
    cdef Py_ssize_t of_result = products_of(kernels)
    if kernels.h == 1 or kernels.w == 1:
        of_result = kernels.h * kernels.w + RESULT_OF_ONE_PASS
    return START + <double> of_result * result.n * result.c * result.h * result.w


cdef bint settles(const Convolution *convolution) noexcept nogil:
    """Where the values allow it, no way below was found to take less time, up to MAX_PRODUCTS."""
    return True


cdef const char *condition(const Convolution *convolution) noexcept nogil:
    if convolution.kernels.h == 1 or convolution.kernels.w == 1:
        return NULL
    return "all kernels must be separable"


cdef void finish_plan(Separable *plan, const Convolution *convolution) noexcept nogil:
    cdef const Array4 *result = result_of(convolution)
    cdef Py_ssize_t i
    plan.convolution = convolution
    plan.micro = microkernels(convolution.itemsize)
    plan.source, plan.out = source_of(convolution), result
    plan.windows = windows_of(convolution)
    for i in range(plan.windows.taps.w):
        plan.column[i] = i
    cut_into_tiles(plan)
    plan.num_threads = threads_for(
        <double> result.n * result.c * result.h * result.w
        * (plan.windows.taps.h + plan.windows.taps.w),
        count_tiles(plan), convolution.num_threads
    )


cdef void cut_into_tiles(Separable *plan) noexcept nogil:
    cdef Py_ssize_t itemsize = plan.convolution.itemsize, taps = plan.windows.taps.h
    cdef Py_ssize_t most
    plan.tiles_across = divide_up(plan.out.w, MAX_ROW_BYTES // itemsize)
    plan.tile_w = divide_up(plan.out.w, plan.tiles_across)    # at most: see first_column
    most = LAID_OUT_BYTES // (panel_pitch(plan) * itemsize) - taps
    most = max(most, max(<Py_ssize_t> 16, taps))
    plan.tiles_down = divide_up(plan.out.h, most)
    # Whole strips.
    plan.tile_h = divide_up(divide_up(plan.out.h, plan.tiles_down), STRIP) * STRIP
    plan.tiles_down = divide_up(plan.out.h, plan.tile_h)


cdef Py_ssize_t count_tiles(const Separable *plan) noexcept nogil:
    return plan.out.n * plan.out.c * plan.tiles_down * plan.tiles_across


# ---------------------------------------------------------------- factors


cdef bint find_factors(const Array4 *kernels, Py_ssize_t kernel, real *u) noexcept nogil:
    """Whether every tap is u[i] * v[j], but for four units of its last place; v lies behind u.

    u is the column of the largest tap, v its row, divided by the tap; a single row is v itself.
    """
    cdef const real *taps = <const real *> kernels.data + kernel * kernels.n_stride
    cdef Py_ssize_t h_stride = kernels.h_stride, w_stride = kernels.w_stride
    cdef real *v = u + kernels.h
    cdef double unit = 2.**-23 if real is float else 2.**-52
    cdef double most = 0, tap
    cdef Py_ssize_t i, j, row = 0, column = 0
    for i in range(kernels.h):
        for j in range(kernels.w):
            tap = fabs(taps[i * h_stride + j * w_stride])
            if tap > most:
                most, row, column = tap, i, j
    for i in range(kernels.h):
        u[i] = taps[i * h_stride + column * w_stride]
    for j in range(kernels.w):
        v[j] = taps[row * h_stride + j * w_stride]
        if kernels.h > 1 and most > 0:
            v[j] /= u[row]
    if kernels.h == 1:
        u[0] = 1
    for i in range(kernels.h):
        for j in range(kernels.w):
            tap = taps[i * h_stride + j * w_stride]
            # Written so that kernels with NaN or infinity are not separable.
            if not fabs(tap - <double> u[i] * v[j]) <= 4 * unit * fabs(tap):
                return False
    return True


cdef bint find_all_factors(const Array4 *kernels, real *factors) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(kernels.n):
        if not find_factors(kernels, k, factors + k * (kernels.h + kernels.w)):
            return False
    return True


cdef inline Py_ssize_t factor_bytes(const Separable *plan) noexcept nogil:
    cdef const Array4 *taps = &plan.windows.taps
    return taps.n * (taps.h + taps.w) * <Py_ssize_t> plan.convolution.itemsize


cdef object factors_of(const Separable *plan, dict kept):
    cdef tuple key = ("factors", plan.convolution.itemsize)
    cdef bint found
    cdef object factors
    if kept is not None and key in kept:
        return kept[key]
    factors = aligned_array(factor_bytes(plan))
    if plan.convolution.itemsize == sizeof(float):
        found = find_all_factors(&plan.windows.taps, <float *> data_of(factors))
    else:
        found = find_all_factors(&plan.windows.taps, <double *> data_of(factors))
    if not found:
        factors = None
    return factors if kept is None else kept.setdefault(key, factors)


# ---------------------------------------------------------------- tiles

# The scratch memory of a thread: a copy of the pixels under a tile; a strip between the passes; a
# row of results.
cdef struct Scratch:
    Py_ssize_t between, row, size


cdef inline Py_ssize_t first_column(const Separable *plan, Py_ssize_t tile) noexcept nogil:
    """The first column of a tile: all are about as wide, and none is narrower than a vector."""
    return tile * plan.out.w // plan.tiles_across


cdef inline Py_ssize_t panel_pitch(const Separable *plan) noexcept nogil:
    return apart(plan.tile_w + plan.windows.taps.w - 1, plan.convolution.itemsize)


cdef Scratch arrange(const Separable *plan) noexcept nogil:
    cdef Scratch layout
    layout.between = (plan.tile_h + plan.windows.taps.h) * panel_pitch(plan)
    layout.row = layout.between + STRIP * panel_pitch(plan)
    layout.size = layout.row + aligned_size(plan.tile_w, plan.convolution.itemsize)
    return layout


cdef inline void down_the_columns(
    const Separable *plan, Py_ssize_t num_rows, Py_ssize_t num_columns, const real *u,
    const real *pixels, Py_ssize_t pitch, real *to, Py_ssize_t to_pitch
) noexcept nogil:
    """The sums of `num_rows` rows. The last vector ends with the last column."""
    cdef Py_ssize_t lanes = plan.micro.lanes
    cdef Py_ssize_t whole = num_columns // lanes * lanes
    cdef Py_ssize_t taps = plan.windows.taps.h
    cdef Py_ssize_t most = min(min(<Py_ssize_t> STRIP, taps), plan.micro.max_slide_rows)
    cdef Py_ssize_t offset = 0, r = 0, count
    while r < num_rows:
        count = min(most, num_rows - r)
        plan.micro.slide[count](
            taps, 1, whole, u, pixels + r * pitch, pitch, &offset, to + r * to_pitch, to_pitch,
            False
        )
        if whole < num_columns:
            plan.micro.slide[count](
                taps, 1, lanes, u, pixels + r * pitch + num_columns - lanes, pitch, &offset,
                to + r * to_pitch + num_columns - lanes, to_pitch, False
            )
        r += count


cdef inline void along_the_row(
    const Separable *plan, Py_ssize_t num_columns, const real *v, const real *pixels, real *to
) noexcept nogil:
    """The sums of a row. The last vector ends with the last column."""
    cdef Py_ssize_t lanes = plan.micro.lanes
    cdef Py_ssize_t whole = num_columns // lanes * lanes
    cdef Py_ssize_t taps = plan.windows.taps.w
    cdef const Py_ssize_t *tap = plan.column
    plan.micro.correlate[1](taps, whole, v, tap, pixels, tap, to, 0, False)
    if whole < num_columns:
        plan.micro.correlate[1](
            taps, lanes, v, tap, pixels + num_columns - lanes, tap, to + num_columns - lanes, 0,
            False
        )


cdef inline void add_bias(
    const real *row, Py_ssize_t num_columns, real bias, real *to
) noexcept nogil:
    cdef Py_ssize_t x
    for x in range(num_columns):
        to[x] = row[x] + bias


cdef void compute_strip(
    const Separable *plan, const real *u, Py_ssize_t num_rows, Py_ssize_t num_columns,
    const real *pixels, Py_ssize_t pitch, const real *bias, real *to, real *scratch
) noexcept nogil:
    cdef const Array4 *taps = &plan.windows.taps
    cdef Scratch layout = arrange(plan)
    cdef real *row = scratch + layout.row
    if taps.h > 1:
        if taps.w == 1 and bias == NULL:
            down_the_columns(plan, num_rows, num_columns, u, pixels, pitch, to, plan.out.h_stride)
            return
        down_the_columns(
            plan, num_rows, num_columns + taps.w - 1, u, pixels, pitch, scratch + layout.between,
            panel_pitch(plan)
        )
        pixels = scratch + layout.between
        pitch = panel_pitch(plan)
    for _ in range(num_rows):
        if taps.w == 1:
            row = <real *> pixels
        else:
            along_the_row(plan, num_columns, u + taps.h, pixels, to if bias == NULL else row)
        if bias != NULL:
            add_bias(row, num_columns, bias[0], to)
        pixels += pitch
        to += plan.out.h_stride


cdef void convolve_tile(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute a tile of results of a kernel, for a sample."""
    cdef const Separable *plan = <const Separable *> work
    cdef const Array4 *taps = &plan.windows.taps
    cdef const Array4 *source = plan.source
    cdef const Array4 *out = plan.out
    cdef Py_ssize_t tiles = plan.tiles_down * plan.tiles_across
    cdef Py_ssize_t sample = task // tiles // taps.n
    cdef Py_ssize_t kernel = task // tiles % taps.n
    cdef Py_ssize_t channel = kernel // (taps.n // plan.convolution.geometry.groups)
    cdef Py_ssize_t top = task % tiles // plan.tiles_across * plan.tile_h
    cdef Py_ssize_t left = first_column(plan, task % plan.tiles_across)
    cdef Py_ssize_t num_rows = min(plan.tile_h, out.h - top)
    cdef Py_ssize_t num_columns = first_column(plan, task % plan.tiles_across + 1) - left
    cdef Positions rows = positions(top + plan.windows.top, 1, num_rows + taps.h - 1, source.h)
    cdef Positions columns = positions(
        left + plan.windows.left, 1, num_columns + taps.w - 1, source.w
    )
    cdef Py_ssize_t pitch = source.h_stride, r = 0
    cdef const real *factors = <const real *> plan.factors + kernel * (taps.h + taps.w)
    cdef const real *bias = NULL
    cdef const real *pixels = <const real *> source.data + (
        sample * source.n_stride + channel * source.c_stride
    )
    cdef real *to = <real *> out.data + (
        sample * out.n_stride + kernel * out.c_stride + top * out.h_stride + left
    )
    if plan.convolution.bias != NULL:
        bias = <const real *> plan.convolution.bias + kernel
    if source.w_stride == 1 and all_inside(&rows, &columns):
        pixels += rows.first * source.h_stride + columns.first
    else:
        pitch = panel_pitch(plan)
        copy_rectangle(plan.micro, source, pixels, &rows, &columns, scratch, pitch)
        pixels = scratch
    while r < num_rows:
        compute_strip(
            plan, factors, min(<Py_ssize_t> STRIP, num_rows - r), num_columns, pixels + r * pitch,
            pitch, bias, to + r * out.h_stride, scratch
        )
        r += STRIP


# ---------------------------------------------------------------- the way


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef Separable *separable = <Separable *> plan
    cdef Tasks tasks
    cdef object factors             # must live as long as they are read
    finish_plan(separable, convolution)
    factors = factors_of(separable, kept)
    if factors is None:
        return False
    separable.factors = data_of(factors)
    tasks = tasks_of(
        plan, convolution.itemsize, <Task> convolve_tile[float], <Task> convolve_tile[double],
        count_tiles(separable), arrange(separable).size * <Py_ssize_t> convolution.itemsize,
        separable.num_threads
    )
    perform_tasks("a separable convolution", &tasks)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    finish_plan(<Separable *> plan, convolution)
    return factors_of(<Separable *> plan, kept) is not None


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef Separable *separable = <Separable *> plan
    finish_plan(separable, convolution)
    needs[0] = Needs(
        separable.num_threads, arrange(separable).size * convolution.itemsize,
        factor_bytes(separable)
    )
    return True


cdef Way separable_way() noexcept:
    return Way("separable", objection, time, settles, condition, run_way, keep, measure)
