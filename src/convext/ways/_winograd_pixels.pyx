"""Pixels of Winograd's tiles: laid out in panels, transformed, and checked meanwhile."""

from libc.string cimport memset

from convext.base._dispatch cimport WINOGRAD_CHANNELS, WINOGRAD_PIXELS
from convext.base._geometry cimport real
from convext.ways._tile cimport Positions, lay_side_by_side, positions
from convext.ways._winograd_check cimport add_squares, add_up_squares, judge_strips
from convext.ways._winograd_phases cimport Phase, describe_phase
from convext.ways._winograd_plan cimport (
    PART, Winograd, channels_of, num_parts, num_phases, overlap, panel_columns, points_of,
    squares_rows
)
from convext.ways._winograd_strips cimport (
    Block, StripPlace, place_strip, sample_of, strip_column, strip_row, wide_tiles
)


cdef void fill_panel(
    const Winograd *plan, const real *image, Py_ssize_t channels, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, real *panel, bint beside, real *squares
) noexcept nogil:
    cdef Positions rows = positions(top, 1, num_rows, plan.source.h)
    cdef Positions columns = positions(left, 1, panel_columns(plan), plan.source.w)
    lay_side_by_side(
        plan.micro, &plan.source, image, channels, &rows, &columns, panel, WINOGRAD_CHANNELS,
        beside, squares, plan.squares_pitch
    )


cdef void fill_panel_of_block(
    const Winograd *plan, const real *image, Py_ssize_t channel_block, Py_ssize_t top,
    Py_ssize_t left, Py_ssize_t num_rows, real *panel, real *squares
) noexcept nogil:
    """Lay out a block of channels: for each part of the kernels, those that it meets, shifted."""
    cdef Py_ssize_t first = channel_block * WINOGRAD_CHANNELS
    cdef Py_ssize_t last = first + channels_of(plan, channel_block)
    cdef Py_ssize_t part, channel, count
    cdef bint in_parts = num_parts(plan) > 1
    while first < last:
        part = first // plan.source_channels
        channel = first % plan.source_channels
        count = min(plan.source_channels - channel, last - first)
        fill_panel(
            plan, image + channel * plan.source.c_stride, count,
            top + part // plan.parts_across * PART, left + part % plan.parts_across * PART,
            num_rows, panel, in_parts, NULL if in_parts else squares
        )
        first += count
        panel += count


cdef void transform_pixels_of_phase(
    const Winograd *plan, Py_ssize_t index, const real *panel, Py_ssize_t channels, real *lines,
    real *values
) noexcept nogil:
    """Transform a strip of pixels of a phase, the columns and then the rows."""
    cdef Phase phase = describe_phase(plan, index)
    cdef Py_ssize_t stride = plan.source_stride
    cdef Py_ssize_t row_size = panel_columns(plan) * WINOGRAD_CHANNELS
    cdef Py_ssize_t pixel_size = stride * WINOGRAD_CHANNELS
    cdef Py_ssize_t points = points_of(plan, phase.columns.taps)
    cdef Py_ssize_t columns = plan.strip_tiles * plan.tile + phase.columns.taps - 1
    cdef Py_ssize_t i
    # With a stride in the source, index is a place in it.
    panel += (phase.rows.shift * stride + index // stride % stride) * row_size
    panel += (phase.columns.shift * stride + index % stride) * WINOGRAD_CHANNELS
    row_size *= stride
    if phase.rows.taps > 1:
        plan.micro.winograd_lines(
            WINOGRAD_PIXELS, <int> phase.rows.taps, columns, channels, panel, pixel_size, row_size,
            lines, WINOGRAD_CHANNELS, columns * WINOGRAD_CHANNELS, False
        )
        panel = lines
        row_size = columns * WINOGRAD_CHANNELS
        pixel_size = WINOGRAD_CHANNELS
    values += phase.first_value * plan.value_stride
    for i in range(points_of(plan, phase.rows.taps)):
        plan.micro.winograd_lines(
            WINOGRAD_PIXELS, <int> phase.columns.taps, plan.strip_tiles, channels,
            panel + i * row_size, plan.tile * pixel_size, pixel_size,
            values + i * points * plan.value_stride, WINOGRAD_CHANNELS, plan.value_stride, False
        )


cdef void transform_strip(
    const Winograd *plan, const real *panel, Py_ssize_t channels, const StripPlace *place,
    real *lines, real *values
) noexcept nogil:
    cdef Py_ssize_t row_size = panel_columns(plan) * WINOGRAD_CHANNELS
    cdef Py_ssize_t i
    if num_phases(plan) > 1:
        for i in range(num_phases(plan)):
            transform_pixels_of_phase(
                plan, i, panel, channels, lines, values + place.wide * WINOGRAD_CHANNELS
            )
        return
    if wide_tiles(plan) > 0:
        plan.micro.winograd_pixels(
            <int> plan.tile, wide_tiles(plan), channels, panel, row_size,
            values + place.wide * WINOGRAD_CHANNELS, plan.value_stride
        )
    panel += wide_tiles(plan) * plan.tile * WINOGRAD_CHANNELS
    for i in range(plan.narrow_tiles):
        plan.micro.winograd_pixels(
            <int> plan.tile, 1, channels, panel + i * (plan.tile - 1) * WINOGRAD_CHANNELS,
            row_size, values + (place.narrow + i) * WINOGRAD_CHANNELS, plan.value_stride
        )


cdef void transform_strips(
    const Winograd *plan, Py_ssize_t group, const Block *block, Py_ssize_t first, Py_ssize_t last,
    real *panel, real *lines, real *squares, real *values
) noexcept nogil:
    """Transform the strips first <= strip < last, which lie below each other."""
    cdef Py_ssize_t top = plan.source_stride * (plan.top + strip_row(plan, first))
    cdef Py_ssize_t left = plan.source_stride * (plan.left + strip_column(plan, first))
    cdef Py_ssize_t num_rows = plan.source_stride * (
        strip_row(plan, last - 1) - strip_row(plan, first) + plan.tile + overlap(plan)
    )
    cdef Py_ssize_t row_size = plan.source_stride * panel_columns(plan) * WINOGRAD_CHANNELS
    cdef Py_ssize_t b, strip
    cdef StripPlace place
    cdef const real *image = (
        <const real *> plan.source.data
        + sample_of(plan, first) * plan.source.n_stride
        + group * plan.source_channels * plan.source.c_stride
    )
    if plan.bands != NULL:
        memset(squares, 0, squares_rows(plan) * plan.squares_pitch * sizeof(real))
        if num_parts(plan) > 1:
            add_squares(
                plan, image, plan.source_channels, top, left,
                num_rows + (plan.parts_down - 1) * PART, squares
            )
    for b in range(plan.channel_blocks):
        if plan.squares != NULL:
            memset(squares, 0, squares_rows(plan) * plan.squares_pitch * sizeof(real))
        fill_panel_of_block(
            plan, image, b, top, left, num_rows, panel,
            NULL if plan.bands == NULL and plan.squares == NULL else squares
        )
        if plan.squares != NULL:
            add_up_squares(
                plan, top - plan.top, left - plan.left, num_rows, squares,
                plan.squares + (group * plan.all_blocks + b) * plan.num_blocks
            )
        for strip in range(first, last):
            place = place_strip(plan, block, strip)
            transform_strip(
                plan, panel + (strip_row(plan, strip) - strip_row(plan, first)) * row_size,
                channels_of(plan, b), &place, lines, values + b * plan.value_size
            )
    if plan.bands != NULL:
        judge_strips(plan, first, last, image, top, left, squares)


cdef void transform_block(
    const Winograd *plan, Py_ssize_t group, const Block *block, real *panel, real *lines,
    real *squares, real *values
) noexcept nogil:
    cdef Py_ssize_t strip = block.first, count
    while strip < block.last:
        count = min(
            min(block.last - strip, plan.panel_strips), plan.tiles_down - strip % plan.tiles_down
        )
        transform_strips(plan, group, block, strip, strip + count, panel, lines, squares, values)
        strip += count
