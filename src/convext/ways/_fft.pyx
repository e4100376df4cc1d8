"""Convolution by the fast Fourier transform, in tiles that overlap: for large kernels.

Two tiles are transformed at a time, as real and imaginary parts; see docs/fft.md.
"""


from convext.base._dispatch cimport FftPixels, FftRows
from convext.base._geometry cimport Array4, Convolution, real, result_of
from convext.base._interrupt cimport Interrupt, check_memory, perform, stopped
from convext.base._machine cimport L3_BYTES, MAX_KEPT_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_array, aligned_free, data_of
from convext.base._tasks cimport Start, Task, Tasks, divide_up, run_tasks, tasks_of
from convext.ways._bands cimport Bands, free_bands, init_bands, mark_all, no_bands
from convext.ways._direct cimport compute_bands
from convext.ways._fft_check cimport Judgement, begin_judgement, judge_pair
from convext.ways._fft_kernels cimport Transformation, transform_kernels, transform_plane
from convext.ways._fft_pixels cimport read_tiles
from convext.ways._fft_plan cimport (
    Fourier, Place, Scratch, arrange, finish_plan, in_pieces, num_batches, num_units, objection,
    place_of, settles, time
)
from convext.ways._ways cimport Needs, Way

# Transformed kernels of all threads.
cdef Py_ssize_t MAX_KERNEL_BYTES = L3_BYTES

# Each thread transforms all kernels for itself, unless they take more: as in _winograd.pyx.
cdef Py_ssize_t MAX_OWN_KERNEL_BYTES = L3_BYTES // 8

# With a few tasks for each thread none waits long for the last one.
cdef Py_ssize_t TASKS_PER_THREAD = 3

NAME = "a convolution by Fourier transforms"


cdef void transform_pixels(
    const Fourier *plan, Py_ssize_t sample, Py_ssize_t group, Py_ssize_t plane,
    const Place *places, real *scratch, real *to, Judgement *judgement
) noexcept nogil:
    """Transform the pixels of a pair of tiles for a plane; add up their squares."""
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t i
    cdef FftPixels[2] tiles
    cdef Py_ssize_t num_columns = read_tiles(
        plan, sample, group, plane, places, scratch + layout.panel, tiles
    )
    cdef FftRows[2] rows
    cdef bint judged = plan.bands != NULL
    for i in range(2 if judged else 0):
        rows[i] = judgement.cells[i].rows
    judgement.total += plan.micro.fft_forward(
        plan.rows.size, plan.columns.size, tiles, num_columns, plan.twiddles,
        scratch + layout.strip, to, rows, scratch + layout.squares if judged else NULL,
        plan.squares_size
    )


cdef void keep_wanted(
    const Fourier *plan, const Place *place, const FftPixels *results, const Array4 *out,
    real *to, bint accumulate
) noexcept nogil:
    """Copy the results of a tile that are wanted to `to`, where result (0, 0) lies."""
    cdef Py_ssize_t y, x, step = plan.columns.step
    cdef Py_ssize_t first = divide_up(place.left, step)
    cdef Py_ssize_t last = divide_up(place.left + place.width, step)
    cdef const real *row = <const real *> results.data
    cdef real *to_row
    for y in range(place.top, place.top + place.height):
        if y % plan.rows.step == 0:
            to_row = to + y // plan.rows.step * out.h_stride
            if accumulate:
                for x in range(first, last):
                    to_row[x * out.w_stride] += row[x * step - place.left]
            else:
                for x in range(first, last):
                    to_row[x * out.w_stride] = row[x * step - place.left]
        row += results.pitch


cdef void finish_pair(
    const Fourier *plan, const Place *places, const Array4 *out, real *to, double bias,
    bint accumulate, const real *sums, real *scratch
) noexcept nogil:
    """Transform the sums of a pair of tiles to results; `to` is where result (0, 0) lies."""
    cdef Scratch layout = arrange(plan)
    cdef bint all_wanted = plan.rows.step == 1 and plan.columns.step == 1 and out.w_stride == 1
    cdef FftPixels tile[2]
    cdef Py_ssize_t i
    for i in range(2):
        tile[i].rows = places[i].height
        tile[i].columns = places[i].width
        if all_wanted:
            tile[i].data = to + places[i].top * out.h_stride + places[i].left
            tile[i].pitch = out.h_stride
        else:
            tile[i].data = scratch + layout.panel + i * plan.rows.size * plan.columns.size
            tile[i].pitch = plan.columns.size
    plan.micro.fft_results(
        plan.rows.size, plan.columns.size, sums, bias, plan.twiddles,
        scratch + layout.strip, tile, accumulate and all_wanted
    )
    if not all_wanted:
        for i in range(2):
            keep_wanted(plan, &places[i], &tile[i], out, to, accumulate)


# What the tasks read, and where they write: results of some units, for some planes.
cdef struct Operands:
    const Fourier *plan
    const Array4 *kernels
    const void *transformed         # of the operands; NULL: each thread transforms all for itself
    const void *bias
    const Array4 *out
    Py_ssize_t first_unit, last_unit
    Py_ssize_t first_plane, last_plane
    Py_ssize_t unit_size            # from the transformed kernels of a unit to the next one's
    Py_ssize_t shares               # of the kernels of a group, computed by tasks of their own


cdef void transform_pairs(
    const Operands *operands, Py_ssize_t sample, Py_ssize_t group, Py_ssize_t pair,
    Py_ssize_t num_pairs, const Place *places, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Transform the pixels of pairs of tiles, and judge them."""
    cdef const Fourier *plan = operands.plan
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t num_planes = operands.last_plane - operands.first_plane, i, p
    cdef Py_ssize_t pair_stride = plan.block * plan.value_size
    cdef Judgement judgement
    for i in range(num_pairs):
        for p in range(num_planes):
            if stopped(interrupt):
                return
            if plan.bands != NULL and (p == 0 or in_pieces(plan)):
                begin_judgement(
                    plan, operands.first_plane + p, &places[2 * i], &judgement,
                    scratch + layout.squares
                )
            transform_pixels(
                plan, sample, group, operands.first_plane + p, &places[2 * i], scratch,
                scratch + layout.values + i * pair_stride + p * plan.value_size, &judgement
            )
            if plan.bands != NULL and (p + 1 == num_planes or in_pieces(plan)):
                judge_pair(
                    plan, sample, group, operands.first_plane + (p if in_pieces(plan) else 0),
                    operands.first_plane + p + 1, pair + i, &places[2 * i], &judgement, scratch
                )


cdef void convolve_batch(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute a batch of pairs of tiles of a sample for a share of the kernels of a group."""
    cdef const Operands *operands = <const Operands *> work
    cdef const Fourier *plan = operands.plan
    cdef const real *transformed = <const real *> operands.transformed
    cdef const Array4 *out = operands.out
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t first_group = operands.first_unit // plan.kernels
    cdef Py_ssize_t groups = (operands.last_unit - 1) // plan.kernels + 1 - first_group
    cdef Py_ssize_t share = task % operands.shares
    cdef Py_ssize_t group = first_group + task // operands.shares % groups
    cdef Py_ssize_t batch = task // operands.shares // groups % num_batches(plan)
    cdef Py_ssize_t sample = task // operands.shares // groups // num_batches(plan)
    cdef Py_ssize_t first = max(operands.first_unit, group * plan.kernels)
    cdef Py_ssize_t units = min(operands.last_unit, (group + 1) * plan.kernels) - first
    cdef Py_ssize_t num_planes = operands.last_plane - operands.first_plane
    cdef Py_ssize_t num_pairs = 1, pair = plan.pairs - num_batches(plan) + batch, i, unit
    cdef Py_ssize_t pair_stride = plan.block * plan.value_size
    cdef double offset
    cdef Place[8] places
    if transformed == NULL:
        transformed = scratch + layout.size
    if batch < plan.pairs // plan.batch:
        num_pairs = plan.batch
        pair = batch * plan.batch
    for i in range(2 * num_pairs):
        places[i] = place_of(plan, 2 * pair + i)
    transform_pairs(operands, sample, group, pair, num_pairs, places, scratch, interrupt)
    for unit in range(
        first + share * units // operands.shares, first + (share + 1) * units // operands.shares
    ):
        if stopped(interrupt):
            return
        plan.micro.fft_products(
            plan.rows.size, plan.columns.size, num_pairs, num_planes, scratch + layout.values,
            pair_stride, plan.value_size,
            transformed + (unit - operands.first_unit) * operands.unit_size, plan.value_size,
            plan.twiddles, scratch + layout.sums, plan.value_size
        )
        offset = 0
        if operands.bias != NULL and operands.first_plane == 0:
            offset = (<const real *> operands.bias)[unit]
        for i in range(num_pairs):
            finish_pair(
                plan, &places[2 * i], out,
                <real *> out.data + sample * out.n_stride + unit * out.c_stride,
                offset, operands.first_plane > 0, scratch + layout.sums + i * plan.value_size,
                scratch
            )


cdef Py_ssize_t num_shares(
    const Fourier *plan, Py_ssize_t units, Py_ssize_t groups
) noexcept nogil:
    """How many tasks share the kernels of a group; each transforms the pixels anew."""
    cdef Py_ssize_t tasks = plan.source.n * num_batches(plan) * groups
    if plan.num_threads == 1:
        return 1
    return min(
        min(plan.kernels, units), divide_up(TASKS_PER_THREAD * plan.num_threads, tasks)
    )


cdef inline Py_ssize_t size_of_all_kernels(const Fourier *plan) noexcept nogil:
    """Elements of the transformed kernels."""
    return num_units(plan) * plan.planes * plan.value_size


cdef bint have_own_kernels(const Fourier *plan) noexcept nogil:
    """Whether each thread transforms all kernels for itself: where it meets all, and they fit."""
    cdef Py_ssize_t bytes = size_of_all_kernels(plan) * <Py_ssize_t> plan.itemsize
    return (
        plan.groups == 1 and num_shares(plan, plan.kernels, 1) == 1
        and plan.planes <= plan.block and bytes <= MAX_OWN_KERNEL_BYTES
    )


cdef void transform_own_kernels(const void *work, real *scratch) noexcept nogil:
    """Transform all kernels, behind the scratch memory of a task."""
    cdef const Operands *operands = <const Operands *> work
    cdef const Fourier *plan = operands.plan
    cdef Transformation all = Transformation(
        plan, operands.kernels, 0, num_units(plan), 0, plan.planes, scratch + arrange(plan).size
    )
    cdef Py_ssize_t i
    for i in range(all.num_units * all.num_planes):
        transform_plane(&all, i, scratch, NULL)


cdef int run_part(Operands *operands, Interrupt *interrupt) noexcept nogil:
    cdef const Fourier *plan = operands.plan
    cdef Py_ssize_t first_group = operands.first_unit // plan.kernels
    cdef Py_ssize_t groups = (operands.last_unit - 1) // plan.kernels + 1 - first_group
    cdef Py_ssize_t size = arrange(plan).size
    cdef Tasks batches
    operands.shares = num_shares(plan, operands.last_unit - operands.first_unit, groups)
    if operands.transformed == NULL:
        size += size_of_all_kernels(plan)
    batches = tasks_of(
        operands, plan.itemsize, <Task> convolve_batch[float], <Task> convolve_batch[double],
        plan.source.n * num_batches(plan) * groups * operands.shares,
        size * <Py_ssize_t> plan.itemsize, plan.num_threads
    )
    if operands.transformed == NULL:
        batches.start = (
            <Start> transform_own_kernels[float] if plan.itemsize == sizeof(float)
            else <Start> transform_own_kernels[double]
        )
    return run_tasks(&batches, interrupt)


cdef inline Py_ssize_t shared_units(const Fourier *plan) noexcept nogil:
    """Units that are transformed at a time, for all threads."""
    cdef Py_ssize_t bytes = plan.block * plan.value_size * <Py_ssize_t> plan.itemsize
    return min(num_units(plan), max(<Py_ssize_t> 1, MAX_KERNEL_BYTES // bytes))


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    """Compute all of a part, as many kernels at a time as fit unless they are kept."""
    cdef Operands operands = (<const Operands *> work)[0]
    cdef const Fourier *plan = operands.plan
    cdef const char *kept = <const char *> operands.transformed
    cdef Py_ssize_t plane_bytes = plan.value_size * <Py_ssize_t> plan.itemsize
    cdef Py_ssize_t units = num_units(plan) if kept != NULL else shared_units(plan)
    cdef void *memory = NULL
    cdef Transformation wanted
    cdef int status = 0
    if kept == NULL and not have_own_kernels(plan):
        memory = aligned_alloc(units * plan.block * plane_bytes, 1)
        if memory == NULL:
            return -1
    while operands.first_plane < plan.planes and status == 0:
        operands.last_plane = min(plan.planes, operands.first_plane + plan.block)
        operands.unit_size = (operands.last_plane - operands.first_plane) * plan.value_size
        operands.transformed = memory
        if kept != NULL:
            operands.unit_size = plan.planes * plan.value_size
            operands.transformed = kept + operands.first_plane * plane_bytes
        operands.first_unit = 0
        while operands.first_unit < num_units(plan) and status == 0:
            operands.last_unit = min(num_units(plan), operands.first_unit + units)
            if memory != NULL:
                wanted = Transformation(
                    plan, operands.kernels, operands.first_unit,
                    operands.last_unit - operands.first_unit,
                    operands.first_plane, operands.last_plane - operands.first_plane, memory
                )
                status = transform_kernels(&wanted, interrupt)
            if status == 0:
                status = run_part(&operands, interrupt)
            operands.first_unit = operands.last_unit
        operands.first_plane = operands.last_plane
    aligned_free(memory)
    return status


cdef int note_bands(Fourier *plan, Bands *bands) except -1:
    """Let tiles that are not safe be noted in `bands`, unless that is NULL."""
    cdef Py_ssize_t i
    plan.bands = bands
    if bands == NULL:
        return 0
    check_memory(init_bands(bands, plan.source.n, plan.rows.tiles), NAME)
    for i in range(plan.rows.tiles + 1):
        bands.row[i] = divide_up(
            min(i * plan.rows.results, plan.rows.out), plan.rows.step
        )
    return 0


cdef int convolve_by_fft(
    Fourier *plan, const Array4 *kernels, const void *bias, const Array4 *out, dict kept,
    Bands *bands
) except -1:
    # Must live as long as it is read.
    cdef object memory = None if kept is None else keep_fft_kernels(plan, kernels, kept)
    cdef void *transformed = NULL if memory is None else data_of(memory)
    cdef Operands whole = Operands(
        plan, kernels, transformed, bias, out, 0, num_units(plan), 0, plan.planes, 0, 0
    )
    cdef char unfit = False
    if transformed != NULL:
        unfit = (<char *> transformed)[len(memory) - 1]
    plan.unfit = &unfit
    note_bands(plan, bands)
    perform(NAME, convolve, &whole)
    if unfit and bands != NULL:
        mark_all(bands)
    return 0


cdef object keep_fft_kernels(Fourier *plan, const Array4 *kernels, dict kept):
    cdef Py_ssize_t units = num_units(plan)
    cdef Py_ssize_t size = units * plan.planes * plan.value_size * <Py_ssize_t> plan.itemsize
    cdef tuple key = (
        "fft", plan.itemsize, plan.micro.lanes, plan.rows.size, plan.columns.size
    )
    cdef object memory = kept.get(key)
    cdef Transformation all
    if memory is not None or size > MAX_KEPT_BYTES:
        return memory
    # And whether they are unfit.
    memory = aligned_array(size + 1)
    cdef void *to = data_of(memory)
    plan.unfit = <char *> to + size
    plan.unfit[0] = False
    all = Transformation(plan, kernels, 0, units, 0, plan.planes, to)
    perform("prepared kernels", transform_kernels, &all)
    # Another thread may have transformed them meanwhile.
    return kept.setdefault(key, memory)


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef Bands bands = no_bands()
    finish_plan(<Fourier *> plan, convolution)
    try:
        convolve_by_fft(
            <Fourier *> plan, &convolution.kernels, convolution.bias, result_of(convolution), kept,
            NULL if convolution.asked else &bands
        )
        compute_bands(convolution, &bands)
    finally:
        free_bands(&bands)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    finish_plan(<Fourier *> plan, convolution)
    keep_fft_kernels(<Fourier *> plan, &convolution.kernels, kept)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef Fourier *fourier = <Fourier *> plan
    cdef Bands bands
    finish_plan(fourier, convolution)
    fourier.bands = NULL if convolution.asked else &bands
    needs.num_threads = fourier.num_threads
    needs.of_thread = arrange(fourier).size * convolution.itemsize
    needs.shared = 0
    if have_own_kernels(fourier):
        needs.of_thread += size_of_all_kernels(fourier) * convolution.itemsize
    else:
        needs.shared = (
            shared_units(fourier) * fourier.block * fourier.value_size * convolution.itemsize
        )
    return True


cdef Way fft_way() noexcept:
    return Way("fft", objection, time, settles, NULL, run_way, keep, measure)
