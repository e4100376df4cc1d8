# The kernels of Winograd's convolutions: laid out and transformed, a unit of them for a block of
# channels at a time; and which of both is kept of prepared kernels.

from libc.string cimport memset

from convext.base._dispatch cimport POINTS, WINOGRAD_CHANNELS, WINOGRAD_TAPS
from convext.base._geometry cimport Array4, real
from convext.base._machine cimport L3_BYTES, MAX_KEPT_BYTES
from convext.base._tasks cimport divide_up
from convext.ways._winograd_phases cimport Phase, describe_phase
from convext.ways._winograd_plan cimport (
    MIN_TILES, PART, Winograd, channels_of, kernel_points_of, kernels_of, num_parts, num_phases,
    num_units, stride_of, unit_size
)

cdef enum:
    # With fewer than MIN_TILES, 3x3 kernels of more bytes are transformed in less time than it
    # takes to read them transformed.
    MAX_READ_BYTES = L3_BYTES // 4


cdef inline Py_ssize_t first_tap(
    const Winograd *plan, Py_ssize_t unit, Py_ssize_t channel
) noexcept nogil:
    """Where the first kernel of a unit begins, for a channel of the source."""
    return (
        unit // plan.group_units * plan.weights.group_stride
        + unit % plan.group_units * plan.width * plan.weights.of_group.n_stride
        + channel * plan.weights.of_group.c_stride
    )


cdef inline void lay_out_channel(
    const Winograd *plan, Py_ssize_t unit, Py_ssize_t channel, real *taps
) noexcept nogil:
    """Lay out the taps for a channel; of a part, zeros where it reaches beyond the kernel."""
    cdef const Array4 *kernels = &plan.weights.of_group
    cdef Py_ssize_t part = channel // plan.source_channels
    cdef Py_ssize_t top = part // plan.parts_across * PART
    cdef Py_ssize_t left = part % plan.parts_across * PART
    cdef Py_ssize_t i, j
    cdef const real *first = <const real *> kernels.data + first_tap(
        plan, unit, channel % plan.source_channels
    )
    if plan.swapped:        # the kernel is turned around, and so are its parts
        top, left = kernels.h - plan.taps - top, kernels.w - plan.taps - left
    for i in range(top, top + plan.taps):
        for j in range(left, left + plan.taps):
            if 0 <= i < kernels.h and 0 <= j < kernels.w:
                plan.micro.interleave(
                    1, kernels_of(plan, unit), first + i * kernels.h_stride + j * kernels.w_stride,
                    kernels.n_stride, 1, taps, plan.width
                )
            else:
                memset(taps, 0, plan.width * sizeof(real))
            taps += plan.width


cdef inline void lay_out_taps(
    const Winograd *plan, Py_ssize_t unit, Py_ssize_t channel_block, real *taps
) noexcept nogil:
    """Lay out the kernels of a unit for a block of channels: [channels][taps][taps][width].

    In lanes beyond the last kernel are left-overs, whose sums are dropped.
    """
    cdef const Array4 *kernels = &plan.weights.of_group
    cdef Py_ssize_t channel = channel_block * WINOGRAD_CHANNELS
    cdef Py_ssize_t channels = channels_of(plan, channel_block)
    cdef Py_ssize_t area = plan.taps * plan.taps
    cdef bint whole = (
        num_parts(plan) == 1 and kernels.w_stride == 1 and kernels.h_stride == plan.taps
    )
    # Channels that lie one after the other are laid out together.
    cdef Py_ssize_t runs = 1 if whole and kernels.c_stride == area else channels
    cdef Py_ssize_t c
    for c in range(runs):
        if whole:
            plan.micro.interleave(
                channels // runs * area, kernels_of(plan, unit),
                <const real *> kernels.data + first_tap(plan, unit, channel + c),
                kernels.n_stride, 1, taps, plan.width
            )
        else:
            lay_out_channel(plan, unit, channel + c, taps)
        taps += area * plan.width


cdef inline Py_ssize_t taps_size(const Winograd *plan) noexcept nogil:
    """Elements of what lay_out_taps writes."""
    return WINOGRAD_CHANNELS * plan.taps * plan.taps * plan.width


cdef inline Py_ssize_t taps_scratch(const Winograd *plan) noexcept nogil:
    """Elements of the scratch memory of transform_piece."""
    cdef Py_ssize_t lines = WINOGRAD_CHANNELS * POINTS * divide_up(plan.taps, 2) * plan.width
    return taps_size(plan) + (lines if num_phases(plan) > 1 else 0)


cdef inline void transform_taps_of_phase(
    const Winograd *plan, const Phase *phase, const real *taps, Py_ssize_t channels,
    Py_ssize_t kernels, real *lines, real *to
) noexcept nogil:
    """Transform the taps of a phase, the columns and then the rows; `lines` is scratch memory."""
    cdef Py_ssize_t step = -plan.width if plan.swapped else plan.width
    cdef Py_ssize_t area = plan.taps * plan.taps * plan.width
    cdef Py_ssize_t across = phase.columns.taps * plan.width
    cdef Py_ssize_t points = kernel_points_of(plan, phase.rows.taps)
    cdef Py_ssize_t i
    step *= stride_of(plan)
    taps += (phase.rows.first * plan.taps + phase.columns.first) * plan.width
    for i in range(phase.columns.taps):
        plan.micro.winograd_lines(
            WINOGRAD_TAPS, <int> phase.rows.taps, channels, kernels,
            taps + i * step, area, plan.taps * step, lines + i * plan.width, points * across,
            across, False
        )
    to += phase.first_kernel_value * plan.piece_stride
    for i in range(points):
        plan.micro.winograd_lines(
            WINOGRAD_TAPS, <int> phase.columns.taps, channels, kernels,
            lines + i * across, points * across, plan.width,
            to + i * kernel_points_of(plan, phase.columns.taps) * plan.piece_stride, plan.width,
            plan.piece_stride, False
        )


cdef inline void transform_taps(
    const Winograd *plan, const real *taps, Py_ssize_t unit, Py_ssize_t channel_block, real *lines,
    real *to
) noexcept nogil:
    """Transform what lay_out_taps has laid out; with phases, `lines` is scratch memory."""
    cdef Py_ssize_t channels = channels_of(plan, channel_block)
    cdef Py_ssize_t count = kernels_of(plan, unit)
    cdef Py_ssize_t i
    cdef Phase phase
    if num_phases(plan) == 1:
        # Turned around, the taps are read from the last one on.
        plan.micro.winograd_kernels(
            <int> plan.taps, channels, count,
            taps + (plan.taps * plan.taps - 1) * plan.width if plan.swapped else taps,
            -plan.width if plan.swapped else plan.width,
            to, plan.piece_stride
        )
        return
    for i in range(num_phases(plan)):
        phase = describe_phase(plan, i)
        transform_taps_of_phase(plan, &phase, taps, channels, count, lines, to)


cdef inline void transform_piece(
    const Winograd *plan, Py_ssize_t unit, Py_ssize_t channel_block, real *taps, real *to
) noexcept nogil:
    """Transform the kernels of a unit for a block of channels; `taps` is scratch memory."""
    lay_out_taps(plan, unit, channel_block, taps)
    transform_taps(plan, taps, unit, channel_block, taps + taps_size(plan), to)


cdef inline bint keeps_taps(const Winograd *plan) noexcept nogil:
    """Whether kernels are kept laid out, but not transformed.

    3x3 kernels become four times as large, and with few tiles there is too little work to hide that
    they come from far away. 5x5 kernels become little larger.
    """
    cdef Py_ssize_t tiles = plan.num_strips * plan.strip_tiles
    cdef Py_ssize_t bytes = num_units(plan) * unit_size(plan) * <Py_ssize_t> plan.itemsize
    return (
        plan.num_blocks == 1 and num_phases(plan) == 1 and plan.taps == 3
        and bytes > (MAX_READ_BYTES if tiles < MIN_TILES else MAX_KEPT_BYTES)
    )


cdef inline Py_ssize_t ready_size(const Winograd *plan) noexcept nogil:
    """Elements of the kernels of a unit that were made ready."""
    return plan.channel_blocks * taps_size(plan) if keeps_taps(plan) else unit_size(plan)
