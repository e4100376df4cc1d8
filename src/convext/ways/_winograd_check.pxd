# Which of Winograd's tiles are not safe, since some of their windows have few of the squares: they
# are noted in bands, which are computed directly (docs/winograd.md).

from convext.base._dispatch cimport EVEN, PHASE_TILE, POINTS, SMALL, Limits, TileOfSquares
from convext.base._geometry cimport Array4, real
from convext.base._tasks cimport divide_up
from convext.ways._bands cimport has_small_pixels, limits_of, mark_band
from convext.ways._tile cimport Positions, pixel_at, positions
from convext.ways._winograd_phases cimport Phase, describe_phase
from convext.ways._winograd_plan cimport (
    PART, Squares, Winograd, num_parts, num_phases, overlap, panel_columns, points_of,
    squares_columns, squares_rows
)
from convext.ways._winograd_strips cimport is_short, sample_of, strip_column, strip_row

cdef enum:
    # For "auto", what the squares of the pixels under a tile add up to is at most times those under
    # each window: its errors are in proportion to their root. With parts errors are larger.
    MAX_CONTRAST = 128
    MAX_CONTRAST_OF_PARTS = 32


cdef inline void add_squares(
    const Winograd *plan, const real *image, Py_ssize_t channels, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, real *squares
) noexcept nogil:
    """Add the squares of some channels; nothing for pixels outside."""
    cdef const Array4 *source = &plan.source
    cdef Positions rows = positions(top, 1, num_rows, source.h)
    cdef Positions columns = positions(left, 1, squares_columns(plan), source.w)
    if rows.begin == rows.end or columns.begin == columns.end:
        return
    plan.micro.add_squares(
        rows.end - rows.begin, columns.end - columns.begin, channels,
        pixel_at(source, image, &rows, &columns, rows.begin, columns.begin), source.h_stride,
        source.c_stride, source.w_stride,
        squares + rows.begin * plan.squares_pitch + columns.begin, plan.squares_pitch
    )


cdef inline void add_up_squares(
    const Winograd *plan, Py_ssize_t top, Py_ssize_t left, Py_ssize_t num_rows,
    const real *rows, Squares *squares
) noexcept nogil:
    """Add up the squares of a panel that begins at these rows and columns of the tile grid."""
    cdef Py_ssize_t[4] inside
    inside[:] = [
        plan.inside[0] - top, plan.inside[1] - top, plan.inside[2] - left, plan.inside[3] - left
    ]
    plan.micro.add_up(
        num_rows, panel_columns(plan), rows, plan.squares_pitch, inside, <double *> squares
    )


cdef inline int judge_phase(
    const Winograd *plan, Py_ssize_t index, Py_ssize_t num_rows, Py_ssize_t num_columns,
    const real *squares, real *scratch
) noexcept nogil:
    """Judge a strip of tiles of a phase; along an axis of one tap, each result."""
    cdef Phase phase = describe_phase(plan, index)
    cdef Limits limits = limits_of(plan.itemsize, MAX_CONTRAST)
    cdef Py_ssize_t stride = plan.source_stride, pitch = plan.squares_pitch
    cdef Py_ssize_t columns = plan.strip_tiles * plan.tile + phase.columns.taps - 1
    cdef Py_ssize_t count = 1, y
    cdef int worst = EVEN
    cdef TileOfSquares tile
    if phase.rows.taps == 1 and phase.columns.taps == 1:
        return EVEN
    tile.window_height = tile.height = phase.rows.taps
    tile.window_width = tile.width = phase.columns.taps
    tile.windows = 1
    if phase.rows.taps > 1:
        tile.height = points_of(plan, phase.rows.taps)
        count = num_rows
    if phase.columns.taps > 1:
        tile.width = points_of(plan, phase.columns.taps)
        tile.windows = PHASE_TILE
    squares += (phase.rows.shift * stride + index // stride % stride) * pitch
    squares += phase.columns.shift * stride + index % stride
    for y in range(num_rows // count):
        plan.micro.pack(
            tile.height, columns, squares + y * stride * pitch, stride * pitch, stride, scratch,
            pitch
        )
        worst = max(worst, plan.micro.uneven(
            &tile, &limits, count, num_columns, columns - tile.width + 1, scratch, pitch,
            scratch + POINTS * pitch
        ))
    return worst


cdef inline int judge_tiles(
    const Winograd *plan, Py_ssize_t num_rows, Py_ssize_t num_columns, const real *squares,
    real *scratch
) noexcept nogil:
    """Judge a strip of tiles without phases."""
    cdef Limits limits = limits_of(
        plan.itemsize, MAX_CONTRAST if num_parts(plan) == 1 else MAX_CONTRAST_OF_PARTS
    )
    cdef TileOfSquares tile
    tile.height = POINTS + (plan.parts_down - 1) * PART
    tile.width = POINTS + (plan.parts_across - 1) * PART
    tile.window_height = plan.weights.of_group.h
    tile.window_width = plan.weights.of_group.w
    tile.windows = plan.tile
    return plan.micro.uneven(
        &tile, &limits, num_rows, num_columns, squares_columns(plan) - tile.width + 1, squares,
        plan.squares_pitch, scratch
    )


cdef inline bint is_uneven(
    const Winograd *plan, Py_ssize_t strip, const real *image, Py_ssize_t top, Py_ssize_t left,
    const real *squares, real *scratch
) noexcept nogil:
    """Whether the tiles of a strip must not be transformed; `squares` are those of their pixels."""
    cdef Py_ssize_t row = strip_row(plan, strip), stride = plan.result_stride
    cdef Py_ssize_t tile = plan.tile - 1 if is_short(plan, strip) else plan.tile
    cdef Py_ssize_t i, num_rows, num_columns
    cdef int worst = EVEN
    for i in range(num_phases(plan)):
        num_rows = min(tile, divide_up(plan.result_h - i // stride % stride, stride) - row)
        num_columns = min(
            plan.strip_tiles * plan.tile,
            divide_up(plan.result_w - i % stride, stride) - strip_column(plan, strip)
        )
        if num_rows <= 0 or num_columns <= 0:
            continue
        worst = max(worst, (
            judge_tiles(plan, num_rows, num_columns, squares, scratch) if num_phases(plan) == 1
            else judge_phase(plan, i, num_rows, num_columns, squares, scratch)
        ))
    if worst == SMALL:
        return has_small_pixels(
            &plan.source, image, plan.source_channels, top,
            top + plan.source_stride * (plan.tile + overlap(plan)) + (plan.parts_down - 1) * PART,
            left, left + squares_columns(plan), limits_of(plan.itemsize, MAX_CONTRAST).least
        )
    return worst != EVEN


cdef inline void judge_strips(
    const Winograd *plan, Py_ssize_t first, Py_ssize_t last, const real *image, Py_ssize_t top,
    Py_ssize_t left, real *squares
) noexcept nogil:
    """Note which of the strips first <= strip < last must be computed directly."""
    cdef Py_ssize_t strip, down, pitch = plan.squares_pitch
    cdef real *scratch = squares + squares_rows(plan) * pitch
    for strip in range(first, last):
        down = plan.source_stride * (strip_row(plan, strip) - strip_row(plan, first))
        if is_uneven(plan, strip, image, top + down, left, squares + down * pitch, scratch):
            mark_band(plan.bands, sample_of(plan, strip), strip % plan.tiles_down)
