# Which pairs of Fourier's tiles are not safe, since some cells have few of their squares: they are
# noted in bands, which are computed directly (docs/fft.md).

from libc.string cimport memset

from convext.base._dispatch cimport FftPixels, FftRows, Limits
from convext.base._geometry cimport real
from convext.base._tasks cimport divide_up
from convext.ways._bands cimport has_small_pixels, limits_of, mark_band
from convext.ways._fft_pixels cimport read_tiles
from convext.ways._fft_plan cimport Fourier, FourierAxis, Pair, Place

cdef enum:
    # For "auto", what the mean square of the pixels of two tiles is at most times the squares of
    # each cell: errors are in proportion to its root. A window holds a whole cell.
    MAX_CONTRAST = 8

    # Of cells narrower than this all columns count, not those of whole groups.
    SMALL_CELL = 8


# What is judged of a tile: its rows and columns of pixels that lie in the source. Rows are cut into
# rows of cells, which may begin in any column: each window holds a whole cell.
cdef struct Cells:
    FftRows rows
    Py_ssize_t count                # rows of cells
    Py_ssize_t begin, end
    Py_ssize_t width                # of a cell

# The squares of all pixels of a pair of tiles, whose cells are these.
cdef struct Judgement:
    double total
    Cells[2] cells


cdef inline Cells cells_of(
    const Fourier *plan, Py_ssize_t plane, const Place *place
) noexcept nogil:
    cdef const FourierAxis *rows = &plan.rows
    cdef const FourierAxis *columns = &plan.columns
    cdef Py_ssize_t top = (
        place.top + rows.origin + plane // columns.pieces % rows.pieces * rows.piece
    )
    cdef Py_ssize_t left = (
        place.left + columns.origin + plane % columns.pieces * columns.piece
    )
    cdef Py_ssize_t first = divide_up(max(<Py_ssize_t> 0, top), rows.spread)
    cdef Py_ssize_t bottom = max(<Py_ssize_t> 0, top + place.height + rows.piece - 1)
    cdef Cells cells
    cells.rows.top = first * rows.spread - top
    cells.rows.spread = rows.spread
    cells.rows.height = max(
        <Py_ssize_t> 0, min(plan.source.h, divide_up(bottom, rows.spread)) - first
    )
    cells.begin = max(<Py_ssize_t> 0, -left)
    cells.end = min(
        place.width + columns.piece - 1, plan.source.w * columns.spread - left
    )
    cells.width = min(columns.cell * columns.spread, cells.end - cells.begin)
    cells.count = cells.rows.pairs = 0
    cells.rows.group = 4 if (columns.cell - 1) * plan.channels >= 5 else 2
    if place.height > 0 and cells.width > 0:
        cells.count = divide_up(cells.rows.height, rows.cell)
    if cells.count > 0 and rows.cell > 1:
        cells.rows.pairs = divide_up(cells.rows.height - 1, rows.cell - 1)
    return cells


cdef inline void begin_judgement(
    const Fourier *plan, const Pair *pair, Py_ssize_t plane, Judgement *judgement, real *squares
) noexcept nogil:
    cdef Cells *cells = judgement.cells
    cdef Py_ssize_t i, rows
    judgement.total = 0
    for i in range(2):
        cells[i] = cells_of(plan, plane, &pair.places[i])
        rows = divide_up(cells[i].rows.pairs, cells[i].rows.group)
        memset(
            squares + i * plan.squares_size, 0, rows * plan.columns.size * sizeof(real)
        )


cdef inline double bound_cells(
    const Fourier *plan, const Cells *cells, const real *squares
) noexcept nogil:
    """At most the squares of a window, by groups of neighbours in pairs of rows."""
    cdef Py_ssize_t columns = cells.end - cells.begin, lanes = plan.micro.lanes, count
    cdef Py_ssize_t rows = divide_up(cells.rows.pairs, cells.rows.group)
    cdef int group = min(8, plan.micro.lanes)
    squares += cells.begin
    if rows == 0:
        return 0
    if cells.width < SMALL_CELL:
        return plan.micro.least_window(
            rows, columns - cells.width + 1, cells.width, squares, plan.columns.size
        )
    if columns < lanes:
        return 0
    # Windows begin anywhere; those that reach beyond the source begin or end with a group.
    count = min(cells.width, lanes) // group
    count += max(<Py_ssize_t> 0, cells.width - lanes - group + 1) // group
    return min(count, (plan.columns.piece - group + 1) // group) * plan.micro.least_group(
        rows, columns, group, squares, plan.columns.size
    )


cdef inline void add_squares(
    const Fourier *plan, const FftPixels *tile, const Cells *cells, real *squares
) noexcept nogil:
    """Add the squares of the pixels of a tile, the rows of a cell into one."""
    cdef Py_ssize_t pitch = cells.rows.spread * tile.pitch
    cdef const real *row = <const real *> tile.data + cells.rows.top * tile.pitch
    cdef Py_ssize_t cell, height
    for cell in range(cells.count):
        height = (cells.rows.height + cell) // cells.count
        plan.micro.add_squares(
            1, tile.columns, height, row, 0, pitch, 1, squares + cell * plan.columns.size, 0
        )
        row += height * pitch


cdef inline bint are_even(
    const Fourier *plan, const Pair *pair, const Judgement *judgement, bint exact,
    const real *squares
) noexcept nogil:
    """Whether each cell of two tiles has enough of their squares; unless `exact`, by a bound."""
    cdef double most = MAX_CONTRAST * plan.rows.size * plan.columns.size, least
    cdef const Cells *cells
    cdef Py_ssize_t i
    for i in range(2):
        cells = &judgement.cells[i]
        least = 0       # where windows meet no pixel
        if cells.count > 0 and exact:
            least = plan.micro.least_window(
                cells.count, cells.end - cells.begin - cells.width + 1, cells.width,
                squares + cells.begin, plan.columns.size
            )
        elif cells.count > 0:
            least = bound_cells(plan, cells, squares)
        if pair.places[i].height > 0 and not judgement.total <= most * least:
            return False
        squares += plan.squares_size
    return True


cdef inline bint has_small_pixels_under(
    const Fourier *plan, const Pair *pair, const Place *place, double least, const real *scratch
) noexcept nogil:
    """Whether a tile may have squares that vanished; `scratch` tells the type."""
    cdef Py_ssize_t top = (plan.rows.origin + place.top) // plan.rows.spread
    cdef Py_ssize_t left = (plan.columns.origin + place.left) // plan.columns.spread
    cdef const real *image = <const real *> plan.source.data + (
        pair.sample * plan.source.n_stride + pair.group * plan.channels * plan.source.c_stride
    )
    return has_small_pixels(
        &plan.source, image, plan.channels, top, top + place.height + plan.rows.extent,
        left, left + plan.columns.size + plan.columns.extent, least
    )


cdef inline void judge_pair(
    const Fourier *plan, const Pair *pair, Py_ssize_t first_plane, Py_ssize_t last_plane,
    const Judgement *judgement, real *scratch
) noexcept nogil:
    """Note the bands of two tiles if they must be computed directly."""
    cdef Limits limits = limits_of(plan.itemsize, 0)
    cdef real *squares = scratch + plan.layout.squares
    cdef const Place *place
    cdef Py_ssize_t plane, i
    cdef FftPixels[2] tiles
    cdef bint bad = not judgement.total <= limits.most
    # Some rows do, as a rule.
    if not bad and not are_even(plan, pair, judgement, False, squares):
        memset(squares, 0, 2 * plan.squares_size * sizeof(real))
        for plane in range(first_plane, last_plane):
            read_tiles(plan, pair, plane, scratch + plan.layout.panel, tiles)
            for i in range(2):
                add_squares(
                    plan, &tiles[i], &judgement.cells[i], squares + i * plan.squares_size
                )
        bad = not are_even(plan, pair, judgement, True, squares)
    for i in range(2):
        place = &pair.places[i]
        if place.height > 0 and (bad or (
            judgement.total < limits.least
            and has_small_pixels_under(plan, pair, place, limits.least, scratch)
        )):
            mark_band(plan.bands, pair.sample, (2 * pair.index + i) // plan.columns.tiles)
