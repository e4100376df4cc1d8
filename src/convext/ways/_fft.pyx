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
from convext.ways._fft_kernels cimport Kernels, transform_kernels, transform_plane
from convext.ways._fft_pixels cimport read_tiles
from convext.ways._fft_plan cimport (
    Fourier, Pair, Place, finish_plan, in_pieces, num_batches, num_units, objection, pair_of,
    settles, time
)
from convext.ways._ways cimport Needs, Way

# Transformed kernels of all threads.
cdef Py_ssize_t MAX_KERNEL_BYTES = L3_BYTES

# Each thread transforms all kernels for itself, unless they take more: as in _winograd.pyx.
cdef Py_ssize_t MAX_OWN_KERNEL_BYTES = L3_BYTES // 8

# With a few tasks for each thread none waits long for the last one.
cdef Py_ssize_t TASKS_PER_THREAD = 3

NAME = "a convolution by Fourier transforms"


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


# What the tasks compute: the results of the kernels' units, or what their planes add to these.
cdef struct Operands:
    Kernels kernels
    Py_ssize_t first_group, groups
    Py_ssize_t shares           # of the kernels of a group, computed by tasks of their own


cdef void finish_pair(
    const Operands *operands, const Pair *pair, Py_ssize_t unit, const real *sums, real *scratch
) noexcept nogil:
    """Transform the sums of a pair of tiles to results of a unit."""
    cdef const Fourier *plan = operands.kernels.plan
    cdef const Array4 *out = result_of(plan.convolution)
    cdef const real *bias = <const real *> plan.convolution.bias
    cdef real *to = <real *> out.data + pair.sample * out.n_stride + unit * out.c_stride
    cdef bint all_wanted = plan.rows.step == 1 and plan.columns.step == 1 and out.w_stride == 1
    cdef bint accumulate = operands.kernels.first_plane > 0
    cdef const Place *place
    cdef FftPixels tile[2]
    cdef Py_ssize_t i
    for i in range(2):
        place = &pair.places[i]
        tile[i].rows = place.height
        tile[i].columns = place.width
        if all_wanted:
            tile[i].data = to + place.top * out.h_stride + place.left
            tile[i].pitch = out.h_stride
        else:
            tile[i].data = scratch + plan.layout.panel + i * plan.rows.size * plan.columns.size
            tile[i].pitch = plan.columns.size
    plan.micro.fft_results(
        plan.rows.size, plan.columns.size, sums,
        <double> 0 if bias == NULL or accumulate else <double> bias[unit], plan.twiddles,
        scratch + plan.layout.strip, tile, accumulate and all_wanted
    )
    if not all_wanted:
        for i in range(2):
            keep_wanted(plan, &pair.places[i], &tile[i], out, to, accumulate)


cdef void transform_pair(
    const Kernels *kernels, const Pair *pair, real *scratch, real *values, Interrupt *interrupt
) noexcept nogil:
    """Transform the pixels of a pair of tiles, and judge them by the squares added up meanwhile."""
    cdef const Fourier *plan = kernels.plan
    cdef Py_ssize_t first = kernels.first_plane, num_columns, plane
    cdef bint judged = plan.bands != NULL
    cdef real *squares = scratch + plan.layout.squares if judged else NULL
    cdef FftPixels[2] tiles
    cdef FftRows[2] rows
    cdef Judgement judgement
    for plane in range(first, kernels.last_plane):
        if stopped(interrupt):
            return
        if judged and (plane == first or in_pieces(plan)):
            begin_judgement(plan, pair, plane, &judgement, squares)
        if judged:
            rows[:] = [judgement.cells[0].rows, judgement.cells[1].rows]
        num_columns = read_tiles(plan, pair, plane, scratch + plan.layout.panel, tiles)
        judgement.total += plan.micro.fft_forward(
            plan.rows.size, plan.columns.size, tiles, num_columns, plan.twiddles,
            scratch + plan.layout.strip, values, rows, squares, plan.squares_size
        )
        if judged and (plane + 1 == kernels.last_plane or in_pieces(plan)):
            judge_pair(
                plan, pair, plane if in_pieces(plan) else first, plane + 1, &judgement, scratch
            )
        values += plan.value_size


cdef void convolve_batch(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute a batch of pairs of tiles of a sample for a share of the kernels of a group."""
    cdef const Operands *operands = <const Operands *> work
    cdef const Kernels *kernels = &operands.kernels
    cdef const Fourier *plan = kernels.plan
    cdef const real *transformed = <const real *> kernels.values
    cdef Py_ssize_t shares = operands.shares, share = task % shares
    cdef Py_ssize_t group = operands.first_group + task // shares % operands.groups
    cdef Py_ssize_t batch = task // shares // operands.groups % num_batches(plan)
    cdef Py_ssize_t sample = task // shares // operands.groups // num_batches(plan)
    cdef Py_ssize_t first = max(kernels.first_unit, group * plan.kernels)
    cdef Py_ssize_t units = min(kernels.last_unit, (group + 1) * plan.kernels) - first
    cdef Py_ssize_t num_pairs = 1, index = plan.pairs - num_batches(plan) + batch, i, unit
    cdef Py_ssize_t pair_stride = plan.block * plan.value_size
    cdef Pair[4] pairs
    if transformed == NULL:
        transformed = scratch + plan.layout.size
    if batch < plan.pairs // plan.batch:
        num_pairs = plan.batch
        index = batch * plan.batch
    for i in range(num_pairs):
        pairs[i] = pair_of(plan, sample, group, index + i)
        transform_pair(
            kernels, &pairs[i], scratch, scratch + plan.layout.values + i * pair_stride, interrupt
        )
    for unit in range(first + share * units // shares, first + (share + 1) * units // shares):
        if stopped(interrupt):
            return
        plan.micro.fft_products(
            plan.rows.size, plan.columns.size, num_pairs, kernels.last_plane - kernels.first_plane,
            scratch + plan.layout.values, pair_stride, plan.value_size,
            transformed + (unit - kernels.first_unit) * kernels.unit_size, plan.value_size,
            plan.twiddles, scratch + plan.layout.sums, plan.value_size
        )
        for i in range(num_pairs):
            finish_pair(
                operands, &pairs[i], unit, scratch + plan.layout.sums + i * plan.value_size, scratch
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
    cdef Kernels own = (<const Operands *> work).kernels
    cdef Py_ssize_t i
    own.values = scratch + own.plan.layout.size
    for i in range(num_units(own.plan) * own.plan.planes):
        transform_plane(&own, i, scratch, NULL)


cdef int convolve_with(const Kernels *kernels, Interrupt *interrupt) noexcept nogil:
    """Compute what these kernels add to the results."""
    cdef const Fourier *plan = kernels.plan
    cdef Operands operands
    cdef Py_ssize_t size = plan.layout.size
    cdef Tasks batches
    operands.kernels = kernels[0]
    operands.first_group = kernels.first_unit // plan.kernels
    operands.groups = (kernels.last_unit - 1) // plan.kernels + 1 - operands.first_group
    operands.shares = num_shares(
        plan, kernels.last_unit - kernels.first_unit, operands.groups
    )
    if kernels.values == NULL:
        size += size_of_all_kernels(plan)
    batches = tasks_of(
        &operands, plan.itemsize, <Task> convolve_batch[float], <Task> convolve_batch[double],
        plan.source.n * num_batches(plan) * operands.groups * operands.shares,
        size * <Py_ssize_t> plan.itemsize, plan.num_threads
    )
    if kernels.values == NULL:
        batches.start = (
            <Start> transform_own_kernels[float] if plan.itemsize == sizeof(float)
            else <Start> transform_own_kernels[double]
        )
    return run_tasks(&batches, interrupt)


cdef inline Py_ssize_t shared_units(const Fourier *plan) noexcept nogil:
    """Units that are transformed at a time, for all threads; 0: each transforms all for itself."""
    cdef Py_ssize_t bytes = plan.block * plan.value_size * <Py_ssize_t> plan.itemsize
    if have_own_kernels(plan):
        return 0
    return min(num_units(plan), max(<Py_ssize_t> 1, MAX_KERNEL_BYTES // bytes))


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    """Compute all, as many kernels at a time as fit unless they are kept."""
    cdef Kernels part = (<const Kernels *> work)[0]
    cdef const Fourier *plan = part.plan
    cdef char *kept = <char *> part.values
    cdef Py_ssize_t units = num_units(plan), b, c
    cdef void *memory = NULL
    cdef int status = 0
    if kept == NULL and shared_units(plan) > 0:
        units = shared_units(plan)
        memory = aligned_alloc(units * plan.block * plan.value_size, plan.itemsize)
        if memory == NULL:
            return -1
        part.values = memory
    for b in range(divide_up(plan.planes, plan.block)):
        part.first_plane = b * plan.block
        part.last_plane = min(plan.planes, part.first_plane + plan.block)
        if kept != NULL:
            part.values = kept + b * plan.block * plan.value_size * <Py_ssize_t> plan.itemsize
        else:
            part.unit_size = (part.last_plane - part.first_plane) * plan.value_size
        for c in range(divide_up(num_units(plan), units)):
            part.first_unit = c * units
            part.last_unit = min(num_units(plan), part.first_unit + units)
            if status == 0 and memory != NULL:
                status = transform_kernels(&part, interrupt)
            if status == 0:
                status = convolve_with(&part, interrupt)
    aligned_free(memory)
    return status


cdef int note_bands(Fourier *plan, Bands *bands) except -1:
    """Let tiles that are not safe be noted in `bands`."""
    cdef Py_ssize_t i
    check_memory(init_bands(bands, plan.source.n, plan.rows.tiles), NAME)
    for i in range(plan.rows.tiles + 1):
        bands.row[i] = divide_up(
            min(i * plan.rows.results, plan.rows.out), plan.rows.step
        )
    plan.bands = bands
    return 0


cdef Kernels all_kernels(const Fourier *plan, void *values) noexcept nogil:
    return Kernels(
        plan, values, 0, num_units(plan), 0, plan.planes, plan.planes * plan.value_size
    )


cdef object kept_kernels(Fourier *plan, dict kept):
    """Return the memory in `kept` that holds the kernels, transformed; None: they are too large."""
    cdef tuple key = (
        "fft", plan.itemsize, plan.micro.lanes, plan.rows.size, plan.columns.size
    )
    cdef Py_ssize_t size = size_of_all_kernels(plan) * <Py_ssize_t> plan.itemsize
    cdef object memory = kept.get(key)
    cdef Kernels whole
    if memory is not None or size > MAX_KEPT_BYTES:
        return memory
    # And whether they are unfit.
    memory = aligned_array(size + 1)
    whole = all_kernels(plan, data_of(memory))
    plan.unfit = <char *> whole.values + size
    plan.unfit[0] = False
    perform("prepared kernels", transform_kernels, &whole)
    # Another thread may have transformed them meanwhile.
    return kept.setdefault(key, memory)


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef Fourier *fourier = <Fourier *> plan
    cdef Kernels whole
    cdef Bands bands = no_bands()
    cdef object memory      # must live as long as it is read
    cdef char unfit = False
    finish_plan(fourier, convolution)
    memory = None if kept is None else kept_kernels(fourier, kept)
    whole = all_kernels(fourier, NULL)
    if memory is not None:
        whole.values = data_of(memory)
        unfit = (<char *> whole.values)[len(memory) - 1]
    fourier.unfit = &unfit
    try:
        if not convolution.asked:
            note_bands(fourier, &bands)
        perform(NAME, convolve, &whole)
        if unfit and not convolution.asked:
            mark_all(&bands)
        compute_bands(convolution, &bands)
    finally:
        free_bands(&bands)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    finish_plan(<Fourier *> plan, convolution)
    kept_kernels(<Fourier *> plan, kept)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef Fourier *fourier = <Fourier *> plan
    finish_plan(fourier, convolution)
    needs.num_threads = fourier.num_threads
    needs.of_thread = fourier.layout.size * convolution.itemsize
    needs.shared = (
        shared_units(fourier) * fourier.block * fourier.value_size * convolution.itemsize
    )
    if have_own_kernels(fourier):
        needs.of_thread += size_of_all_kernels(fourier) * convolution.itemsize
    return True


cdef Way fft_way() noexcept:
    return Way("fft", objection, time, settles, NULL, run_way, keep, measure)
