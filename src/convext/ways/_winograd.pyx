"""Winograd's convolutions F(4x4, 3x3) and F(2x2, 5x5): 36 products in place of 144 and of 100.

With a stride of two, 4x4 results take 81 products in place of 144, or 121 in place of 400. Other
kernels of up to 9x9 taps are cut into parts of 3x3. What that means for tiles: _winograd_plan.pxd.

Pixels and kernels are transformed, for each of the 36 values a matrix of tiles by channels meets
one of channels by kernels, and the sums are transformed to results; see docs/winograd.md. Vectors
hold channels, then kernels, never pixels, so that narrow images leave no lane empty.
"""

from libc.string cimport memset

from convext.base._geometry cimport Convolution, real
from convext.base._interrupt cimport Interrupt, check_memory, perform
from convext.base._machine cimport L3_BYTES, MAX_KEPT_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_array, aligned_free, aligned_size, data_of
from convext.base._tasks cimport Task, Tasks, run_tasks, tasks_of
from convext.ways._bands cimport Bands, free_bands, init_bands, no_bands
from convext.ways._direct cimport compute_bands
from convext.ways._ways cimport Needs, Way
from convext.ways._winograd_pixels cimport transform_block
from convext.ways._winograd_plan cimport (
    Winograd, finish_plan, num_units, objection, settles, time, unit_size
)
from convext.ways._winograd_products cimport Scratch, arrange, compute_unit
from convext.ways._winograd_strips cimport Block, block_at, strip_row
from convext.ways._winograd_taps cimport (
    keeps_taps, lay_out_taps, ready_size, taps_scratch, taps_size, transform_piece
)

# Transformed kernels should stay in the L3 cache.
cdef Py_ssize_t MAX_KERNEL_BYTES = L3_BYTES // 2

# Each thread transforms all kernels for itself, unless they take more than its share of the L3
# cache: to transform them takes less time than to read what others have transformed, and much less
# than to write what others have read (docs/measurements.md).
cdef Py_ssize_t MAX_OWN_KERNEL_BYTES = L3_BYTES // 4

NAME = "a Winograd convolution"


# What is read, and where it is written: the results of some units. Tasks follow each other by block
# and unit: so a thread meets few blocks, whose pixels it transforms.
cdef struct Operands:
    const Winograd *plan
    void *ready         # the units' kernels, see make_ready; or NULL
    Py_ssize_t first_unit, last_unit
    bint own            # each thread transforms the kernels for itself


cdef void make_piece_ready(
    const void *work, Py_ssize_t i, real *taps, Interrupt *interrupt
) noexcept nogil:
    cdef const Operands *operands = <const Operands *> work
    cdef const Winograd *plan = operands.plan
    cdef Py_ssize_t unit = operands.first_unit + i // plan.channel_blocks
    cdef Py_ssize_t channel_block = i % plan.channel_blocks
    cdef real *to = <real *> operands.ready
    if keeps_taps(plan):
        lay_out_taps(plan, unit, channel_block, to + i * taps_size(plan))
    else:
        transform_piece(plan, unit, channel_block, taps, to + i * plan.piece_size)


cdef int make_ready(const void *work, Interrupt *interrupt) noexcept nogil:
    """Transform kernels, or lay them out, all that can be done before any pixel is seen."""
    cdef const Operands *operands = <const Operands *> work
    cdef const Winograd *plan = operands.plan
    cdef Tasks pieces = tasks_of(
        work, plan.itemsize, <Task> make_piece_ready[float], <Task> make_piece_ready[double],
        (operands.last_unit - operands.first_unit) * plan.channel_blocks,
        taps_scratch(plan) * <Py_ssize_t> plan.itemsize, plan.num_threads
    )
    return run_tasks(&pieces, interrupt)


# Behind the scratch memory of a task lies what a thread has transformed: the number of the block
# and group of the pixels; for each unit whether its kernels are, and these, where they are its own.
cdef inline Py_ssize_t *transformed_of(const Operands *operands, void *scratch) noexcept nogil:
    return <Py_ssize_t *> (
        <char *> scratch + arrange(operands.plan).size * <Py_ssize_t> operands.plan.itemsize
    )


cdef inline Py_ssize_t marks_size(const Operands *operands) noexcept nogil:
    """Bytes that say what is transformed."""
    cdef Py_ssize_t units = operands.last_unit - operands.first_unit
    return aligned_size(<Py_ssize_t> sizeof(Py_ssize_t) + units, 1)


cdef void begin_thread(const void *work, void *scratch) noexcept nogil:
    cdef const Operands *operands = <const Operands *> work
    cdef Py_ssize_t *transformed = transformed_of(operands, scratch)
    memset(transformed, 0, marks_size(operands))
    transformed[0] = -1


cdef const real *own_kernels(
    const Operands *operands, Py_ssize_t unit, Py_ssize_t *transformed, real *taps
) noexcept nogil:
    """Return the transformed kernels of a unit, the thread's own; `taps` is scratch memory."""
    cdef const Winograd *plan = operands.plan
    cdef Py_ssize_t i = unit - operands.first_unit, b
    cdef char *is_transformed = <char *> (transformed + 1)
    cdef real *own = <real *> (<char *> transformed + marks_size(operands)) + i * unit_size(plan)
    if not is_transformed[i]:
        for b in range(plan.channel_blocks):
            transform_piece(plan, unit, b, taps, own + b * plan.piece_size)
        is_transformed[i] = True
    return own


cdef void convolve_block(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute a block of tiles for a unit of kernels."""
    cdef const Operands *operands = <const Operands *> work
    cdef const Winograd *plan = operands.plan
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t *transformed = transformed_of(operands, scratch)
    cdef Py_ssize_t units = operands.last_unit - operands.first_unit
    cdef Py_ssize_t unit = operands.first_unit + task % units
    cdef Py_ssize_t group = unit // plan.group_units
    cdef Py_ssize_t pixels = task // units * plan.groups + group
    cdef Block block = block_at(plan, task // units)
    cdef const real *ready = NULL
    if pixels != transformed[0]:
        transform_block(
            plan, group, &block, scratch + layout.panel, scratch + layout.lines,
            scratch + layout.squares, scratch + layout.values
        )
        transformed[0] = pixels
    if operands.own:
        ready = own_kernels(operands, unit, transformed, scratch + layout.taps)
    elif operands.ready != NULL:
        ready = <const real *> operands.ready + (unit - operands.first_unit) * ready_size(plan)
    compute_unit(plan, ready, unit, &block, scratch)


cdef int run_units(const Operands *operands, Interrupt *interrupt) noexcept nogil:
    """Compute all tiles for some units."""
    cdef const Winograd *plan = operands.plan
    cdef Py_ssize_t units = operands.last_unit - operands.first_unit
    cdef Py_ssize_t size = arrange(plan).size + (units * unit_size(plan) if operands.own else 0)
    cdef Tasks blocks = tasks_of(
        operands, plan.itemsize, <Task> convolve_block[float], <Task> convolve_block[double],
        plan.num_blocks * units, marks_size(operands) + size * <Py_ssize_t> plan.itemsize,
        plan.num_threads
    )
    blocks.start = begin_thread
    return run_tasks(&blocks, interrupt)


cdef inline bint have_own_kernels(const Winograd *plan) noexcept nogil:
    """Whether each thread transforms all kernels for itself."""
    cdef Py_ssize_t bytes = num_units(plan) * unit_size(plan) * <Py_ssize_t> plan.itemsize
    return plan.num_blocks > 1 and bytes <= MAX_OWN_KERNEL_BYTES


cdef inline Py_ssize_t shared_units(const Winograd *plan) noexcept nogil:
    """Units that are transformed at a time, for all threads."""
    cdef Py_ssize_t bytes = unit_size(plan) * <Py_ssize_t> plan.itemsize
    # Used once, a piece is best transformed where it is used, in the L2 cache.
    if plan.num_blocks == 1 or have_own_kernels(plan):
        return 0
    return min(num_units(plan), max(<Py_ssize_t> 1, MAX_KERNEL_BYTES // bytes))


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    """Compute all that there is, with all kernels ready, or none."""
    cdef Operands operands = (<const Operands *> work)[0]
    cdef const Winograd *plan = operands.plan
    cdef Py_ssize_t units = num_units(plan), shared = shared_units(plan)
    cdef int status = 0
    if operands.ready != NULL or shared == 0:
        operands.own = operands.ready == NULL and have_own_kernels(plan)
        return run_units(&operands, interrupt)
    operands.ready = aligned_alloc(shared * unit_size(plan), plan.itemsize)
    if operands.ready == NULL:
        return -1
    while operands.first_unit < units and status == 0:
        operands.last_unit = min(units, operands.first_unit + shared)
        status = make_ready(&operands, interrupt)
        if status == 0:
            status = run_units(&operands, interrupt)
        operands.first_unit = operands.last_unit
    aligned_free(operands.ready)
    return status


cdef int note_bands(Winograd *plan, Bands *bands) except -1:
    """Let tiles that are not safe be noted in `bands`."""
    cdef Py_ssize_t i
    check_memory(init_bands(bands, plan.source.n, plan.tiles_down), NAME)
    for i in range(plan.tiles_down):
        bands.row[i] = strip_row(plan, i) * plan.result_stride
    bands.row[plan.tiles_down] = plan.result_h
    plan.bands = bands
    return 0


cdef object kept_kernels(const Winograd *plan, dict kept):
    """Return the memory in `kept` that holds the kernels, made ready; None: they are too large."""
    # With a stride, which taps make a phase depends on the padding, and "same" on the image.
    cdef tuple key = (
        "winograd", plan.itemsize, plan.width, keeps_taps(plan), plan.first_row, plan.first_column
    )
    cdef Py_ssize_t size = num_units(plan) * ready_size(plan) * <Py_ssize_t> plan.itemsize
    cdef object memory = kept.get(key)
    cdef Operands whole
    if memory is not None or size > MAX_KEPT_BYTES:
        return memory
    memory = aligned_array(size)
    whole = Operands(plan, data_of(memory), 0, num_units(plan), False)
    perform("prepared kernels", make_ready, &whole)
    # Another thread may have transformed them meanwhile.
    return kept.setdefault(key, memory)


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef Winograd *winograd = <Winograd *> plan
    cdef Operands whole
    cdef Bands bands = no_bands()
    cdef object memory      # must live as long as it is read
    finish_plan(winograd, convolution)
    memory = None if kept is None else kept_kernels(winograd, kept)
    whole = Operands(winograd, NULL, 0, num_units(winograd), False)
    if memory is not None:
        whole.ready = data_of(memory)
    try:
        if not convolution.asked:
            note_bands(winograd, &bands)
        perform(NAME, convolve, &whole)
        compute_bands(convolution, &bands)
    finally:
        free_bands(&bands)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    finish_plan(<Winograd *> plan, convolution)
    kept_kernels(<Winograd *> plan, kept)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef Winograd *winograd = <Winograd *> plan
    cdef Py_ssize_t unit
    cdef Bands bands
    finish_plan(winograd, convolution)
    winograd.bands = NULL if convolution.asked else &bands
    unit = unit_size(winograd) * convolution.itemsize
    needs.num_threads = winograd.num_threads
    needs.of_thread = arrange(winograd).size * convolution.itemsize
    needs.shared = shared_units(winograd) * unit
    if have_own_kernels(winograd):
        needs.of_thread += num_units(winograd) * unit
    return True


cdef Way winograd_way() noexcept:
    return Way("winograd", objection, time, settles, NULL, run_way, keep, measure)
