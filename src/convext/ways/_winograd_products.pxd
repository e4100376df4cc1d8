# The products of Winograd's tiles with a unit of kernels, their sums, and what results from them.

from libc.string cimport memcpy, memset

from convext.base._dispatch cimport AT_A, POINTS, VALUES, WINOGRAD_CHANNELS, WINOGRAD_RESULTS
from convext.base._geometry cimport Array4, real, result_of
from convext.base._tasks cimport divide_up
from convext.ways._bands cimport mark_all, most_of_kernels
from convext.ways._winograd_phases cimport Phase, describe_phase
from convext.ways._winograd_plan cimport (
    Winograd, channels_of, kernel_points_of, kernels_of, num_phases, panel_columns, panel_rows,
    points_of, result_columns, result_rows, squares_size, unit_size
)
from convext.ways._winograd_strips cimport (
    Block, Range, StripPlace, is_short, place_strip, sample_of, strip_column, strip_row,
    tiles_of_value, wide_tiles
)
from convext.ways._winograd_taps cimport (
    keeps_taps, taps_scratch, taps_size, transform_piece, transform_taps
)

cdef extern from *:
    void __builtin_prefetch(const void *address, int write, int locality) nogil

# The scratch memory of a thread: the transformed pixels of a block of tiles, and then those of a
# panel, later the sums of a unit of kernels with their results.
cdef struct Scratch:
    Py_ssize_t values       # [channel_blocks][points * points][tiles][WINOGRAD_CHANNELS]
    Py_ssize_t panel        # [rows][columns][WINOGRAD_CHANNELS]
    Py_ssize_t sums         # [VALUES][tiles][width], at the panel's place
    Py_ssize_t errors       # of these sums, likewise
    Py_ssize_t results      # [rows of a strip][columns][width]; with phases, of all strips
    Py_ssize_t rows         # [width][rows of a strip][columns]
    Py_ssize_t bias         # [width]
    Py_ssize_t lines        # with phases, what is transformed along one axis
    Py_ssize_t squares      # for the check of the pixels
    Py_ssize_t taps         # for transform_piece
    Py_ssize_t piece        # transformed kernels, for a block of channels; with phases, for all
    Py_ssize_t size


cdef inline Scratch arrange(const Winograd *plan) noexcept nogil:
    cdef Scratch layout
    cdef bint phases = num_phases(plan) > 1
    cdef Py_ssize_t strip = result_rows(plan) * result_columns(plan) * plan.width
    cdef Py_ssize_t panel = (
        panel_rows(plan, plan.panel_strips) * panel_columns(plan) * WINOGRAD_CHANNELS
    )
    # A strip of six rows of pixels, or of four of sums.
    cdef Py_ssize_t lines = (
        POINTS * plan.strip_tiles * POINTS * max(plan.width, WINOGRAD_CHANNELS) if phases else 0
    )
    # Kernels that lie side by side are whole vectors, and so is all that is made up of them.
    layout.values = 0
    layout.panel = layout.sums = plan.channel_blocks * plan.value_size
    layout.errors = layout.sums + VALUES * plan.sum_stride
    layout.results = layout.errors + VALUES * plan.sum_stride
    layout.rows = layout.results + strip * (plan.block_strips if phases else 1)
    layout.bias = max(layout.rows + strip, layout.panel + panel)
    layout.lines = layout.bias + plan.width
    layout.squares = layout.lines + lines
    layout.taps = layout.squares + (squares_size(plan) if plan.bands != NULL else 0)
    layout.piece = layout.taps + taps_scratch(plan)
    layout.size = layout.piece + (unit_size(plan) if phases else plan.piece_size)
    return layout


cdef inline void store_results(
    const Winograd *plan, Py_ssize_t num_rows, Py_ssize_t num_columns, Py_ssize_t pitch,
    Py_ssize_t count, const real *results, real *rows, const Array4 *out, real *to
) noexcept nogil:
    """Bring the results of a strip, pixel by pixel, to the rows of `count` kernels.

    Rows of results are `pitch` pixels long, of which the first `num_columns` count.
    """
    cdef Py_ssize_t pixels = num_rows * pitch
    cdef Py_ssize_t k, y, x
    # Straight to their place, where that fills a vector.
    if (
        out.w_stride == 1 and out.h_stride == num_columns and pitch == num_columns
        and pixels >= plan.micro.lanes
    ):
        plan.micro.interleave(count, pixels, results, plan.width, 1, to, out.c_stride)
        return
    if out.w_stride == 1 and num_columns >= plan.micro.lanes:
        for y in range(num_rows):
            plan.micro.interleave(
                count, num_columns, results + y * pitch * plan.width, plan.width, 1,
                to + y * out.h_stride, out.c_stride
            )
        return
    plan.micro.interleave(count, pixels, results, plan.width, 1, rows, pixels)
    for k in range(count):
        for y in range(num_rows):
            for x in range(num_columns):
                to[k * out.c_stride + y * out.h_stride + x * out.w_stride] = rows[x]
            rows += pitch


cdef inline void begin_unit(
    const Winograd *plan, Py_ssize_t num_strips, Py_ssize_t kernel, Py_ssize_t count,
    const Scratch *layout, real *scratch
) noexcept nogil:
    """Fetch the bias; the results of phases are added to it."""
    cdef const real *bias = <const real *> plan.convolution.bias
    cdef real *offset = scratch + layout.bias
    cdef Py_ssize_t i
    memset(offset, 0, plan.width * sizeof(real))
    if bias != NULL:
        memcpy(offset, bias + kernel, count * sizeof(real))
    if num_phases(plan) > 1:
        for i in range(num_strips * result_rows(plan) * result_columns(plan)):
            memcpy(
                scratch + layout.results + i * plan.width, offset, plan.width * sizeof(real)
            )


cdef inline void add_phase(
    const Winograd *plan, Py_ssize_t index, Py_ssize_t num_strips, Py_ssize_t count,
    const Scratch *layout, real *scratch
) noexcept nogil:
    """Turn the sums of a phase into results, the columns and then the rows, and add these."""
    cdef Phase phase = describe_phase(plan, index)
    cdef Py_ssize_t stride = plan.result_stride
    cdef Py_ssize_t pitch = result_columns(plan) * plan.width
    cdef Py_ssize_t points = points_of(plan, phase.columns.taps)
    cdef Py_ssize_t tiles = plan.strip_tiles * plan.width
    cdef real *lines = scratch + layout.lines
    cdef real *results = scratch + layout.results
    cdef Py_ssize_t strip, i
    results += index // stride % stride * pitch + index % stride * plan.width
    for strip in range(num_strips):
        for i in range(points):
            plan.micro.winograd_lines(
                WINOGRAD_RESULTS, <int> phase.rows.taps, plan.strip_tiles, count,
                scratch + layout.sums + strip * tiles + i * plan.sum_stride, plan.width,
                points * plan.sum_stride, lines + i * tiles, plan.width, points * tiles, False
            )
        for i in range(plan.tile):
            plan.micro.winograd_lines(
                WINOGRAD_RESULTS, <int> phase.columns.taps, plan.strip_tiles, count,
                lines + i * points * tiles, plan.width, tiles,
                results + i * stride * pitch, plan.tile * stride * plan.width,
                stride * plan.width, True
            )
        results += result_rows(plan) * pitch


cdef inline void transform_sums(
    const Winograd *plan, const Block *block, Py_ssize_t strip, Py_ssize_t num_rows,
    Py_ssize_t num_columns, Py_ssize_t count, const Scratch *layout, real *scratch
) noexcept nogil:
    """Transform the sums of a strip to results."""
    cdef StripPlace place = place_strip(plan, block, strip)
    cdef real *sums = scratch + layout.sums
    cdef real *bias = scratch + layout.bias
    cdef real *results = scratch + layout.results
    cdef Py_ssize_t row_size = num_columns * plan.width
    cdef Py_ssize_t left = min(num_columns, wide_tiles(plan) * plan.tile)
    plan.micro.winograd_results(
        <int> plan.tile, count, sums + place.wide * plan.width, plan.sum_stride, bias, num_rows,
        left, results, row_size
    )
    while left < num_columns:
        plan.micro.winograd_results(
            <int> plan.tile, count, sums + place.narrow * plan.width, plan.sum_stride, bias,
            num_rows, min(plan.tile - 1, num_columns - left), results + left * plan.width, row_size
        )
        place.narrow += 1
        left += plan.tile - 1


cdef inline void finish_unit(
    const Winograd *plan, const Block *block, Py_ssize_t kernel, Py_ssize_t count,
    const Scratch *layout, real *scratch
) noexcept nogil:
    """Store the results of a block of strips, of `count` kernels."""
    cdef const Array4 *out = result_of(plan.convolution)
    cdef real *results = scratch + layout.results
    cdef Py_ssize_t pitch
    cdef Py_ssize_t strip, top, left, num_rows, num_columns
    for strip in range(block.first, block.last):
        top = strip_row(plan, strip) * plan.result_stride
        left = strip_column(plan, strip) * plan.result_stride
        num_rows = min(result_rows(plan), out.h - top)
        num_columns = min(result_columns(plan), out.w - left)
        if is_short(plan, strip):
            num_rows = min(num_rows, plan.tile - 1)
        if num_phases(plan) == 1:
            pitch = num_columns
            transform_sums(
                plan, block, strip, num_rows, num_columns, count, layout, scratch
            )
        else:
            pitch = result_columns(plan)
        store_results(
            plan, num_rows, num_columns, pitch, count, results, scratch + layout.rows, out,
            <real *> out.data + (
                sample_of(plan, strip) * out.n_stride + kernel * out.c_stride
                + top * out.h_stride + left * out.w_stride
            )
        )
        if num_phases(plan) > 1:
            results += result_rows(plan) * pitch * plan.width


cdef inline Py_ssize_t value_at_a(Py_ssize_t taps) noexcept nogil:
    """Which value of `taps` taps along an axis is that at the point a."""
    return 0 if taps == 1 else AT_A - 1 if taps == 2 else AT_A


cdef inline void check_values(
    const Winograd *plan, const real *values, Py_ssize_t channels, Py_ssize_t kernels
) noexcept nogil:
    """Note where taps are not finite, or too large, by a value in which all of them count."""
    cdef real[64] squares       # twice the lanes of the widest vector of float, and more
    cdef double most = most_of_kernels(plan.itemsize)
    cdef Py_ssize_t k
    if plan.bands == NULL:
        return
    memset(squares, 0, kernels * sizeof(real))
    plan.micro.add_squares(1, kernels, channels, values, 0, plan.width, 1, squares, 0)
    for k in range(kernels):
        if not squares[k] <= most:
            mark_all(plan.bands)
            return


cdef inline void fetch(const char *source, Py_ssize_t count) noexcept nogil:
    """Ask for `count` bytes, to be in the L2 cache when they are needed."""
    cdef Py_ssize_t i
    for i in range(0, count, 64):
        __builtin_prefetch(source + i, 0, 2)


cdef inline const real *piece_of(
    const Winograd *plan, const real *ready, Py_ssize_t unit, Py_ssize_t channel_block,
    bint first_phase, const Scratch *layout, real *scratch
) noexcept nogil:
    """Return the transformed kernels of a unit for a block of channels.

    `ready` are those of the unit, or NULL. If they are not transformed, they are for the first
    phase: the pieces of all blocks stay only where others follow.
    """
    cdef real *piece = scratch + layout.piece
    if ready != NULL and not keeps_taps(plan):
        return ready + channel_block * plan.piece_size
    if num_phases(plan) > 1:
        piece += channel_block * plan.piece_size
    if not first_phase:
        return piece
    if ready != NULL:
        transform_taps(
            plan, ready + channel_block * taps_size(plan), unit, channel_block, <real *> NULL, piece
        )
    else:
        transform_piece(plan, unit, channel_block, scratch + layout.taps, piece)
    return piece


cdef inline void sum_products(
    const Winograd *plan, Py_ssize_t index, const real *ready, Py_ssize_t unit,
    const Block *block, const Scratch *layout, real *scratch
) noexcept nogil:
    """Sum the products of a block of strips with the taps of a phase.

    `ready` are the kernels of the unit, or NULL. Where they are kept as taps, those of the next
    block of channels are fetched meanwhile.
    """
    cdef Phase phase = describe_phase(plan, index)
    cdef Py_ssize_t rows = points_of(plan, phase.rows.taps)
    cdef Py_ssize_t columns = points_of(plan, phase.columns.taps)
    cdef Py_ssize_t kernel_columns = kernel_points_of(plan, phase.columns.taps)
    cdef Py_ssize_t row_stride = 0 if phase.rows.taps == 1 else kernel_columns * plan.piece_stride
    cdef Py_ssize_t column_stride = 0 if phase.columns.taps == 1 else plan.piece_stride
    cdef Py_ssize_t kernels = kernels_of(plan, unit), channels, b, i, j
    cdef Py_ssize_t fetched = taps_size(plan) if ready != NULL and keeps_taps(plan) else 0
    cdef Py_ssize_t share = divide_up(fetched, VALUES)
    cdef const real *piece
    cdef const real *values
    cdef const real *ahead
    cdef real *sums
    cdef real *errors
    cdef Range tiles
    for b in range(plan.channel_blocks):
        channels = channels_of(plan, b)
        piece = piece_of(plan, ready, unit, b, index == 0, layout, scratch)
        piece += phase.first_kernel_value * plan.piece_stride
        check_values(
            plan, piece + plan.piece_stride * (
                value_at_a(phase.rows.taps) * kernel_columns + value_at_a(phase.columns.taps)
            ), channels, kernels
        )
        values = scratch + layout.values + b * plan.value_size
        values += phase.first_value * plan.value_stride
        sums = scratch + layout.sums
        errors = scratch + layout.errors
        ahead = ready + (b + 1) * fetched
        for i in range(rows):
            for j in range(columns):
                fetch(<const char *> ahead, share * <Py_ssize_t> sizeof(real))
                tiles = tiles_of_value(block, i, j)
                plan.micro.winograd_products(
                    tiles.last - tiles.first, channels, kernels,
                    values + tiles.first * WINOGRAD_CHANNELS,
                    piece + i * row_stride + j * column_stride, sums + tiles.first * plan.width,
                    errors + tiles.first * plan.width, b == 0, b + 1 == plan.channel_blocks
                )
                values += plan.value_stride
                sums += plan.sum_stride
                errors += plan.sum_stride
                ahead += share


cdef inline void compute_unit(
    const Winograd *plan, const real *ready, Py_ssize_t unit, const Block *block, real *scratch
) noexcept nogil:
    """Compute a block of tiles, whose pixels are transformed, for a unit of kernels.

    `ready` are these kernels, or NULL.
    """
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t num_strips = block.last - block.first
    cdef Py_ssize_t count = kernels_of(plan, unit), i
    cdef Py_ssize_t kernel = (
        unit // plan.group_units * plan.kernels + unit % plan.group_units * plan.width
    )
    begin_unit(plan, num_strips, kernel, count, &layout, scratch)
    for i in range(num_phases(plan)):
        sum_products(plan, i, ready, unit, block, &layout, scratch)
        if num_phases(plan) > 1:
            add_phase(plan, i, num_strips, count, &layout, scratch)
    finish_unit(plan, block, kernel, count, &layout, scratch)
