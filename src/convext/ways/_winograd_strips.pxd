# Where the tiles of Winograd's plan lie: in strips, and these in blocks.

from convext.base._dispatch cimport AT_INFINITY
from convext.ways._winograd_plan cimport Winograd


cdef inline Py_ssize_t sample_of(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    return strip // (plan.tiles_down * plan.strips_across)


cdef inline bint is_short(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    """Whether the tiles of a strip have a row less."""
    return strip % plan.tiles_down >= plan.tiles_down - plan.short_strips


cdef inline Py_ssize_t strip_row(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    """The first row of results of a strip."""
    cdef Py_ssize_t down = strip % plan.tiles_down
    return down * plan.tile - max(
        <Py_ssize_t> 0, down - (plan.tiles_down - plan.short_strips)
    )


cdef inline Py_ssize_t strip_column(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    """The first column of results of a strip."""
    return strip // plan.tiles_down % plan.strips_across * plan.strip_tiles * plan.tile


cdef inline Py_ssize_t wide_tiles(const Winograd *plan) noexcept nogil:
    """The tiles of a strip that are not narrow."""
    return plan.strip_tiles - plan.narrow_tiles


cdef inline Py_ssize_t tall_strips(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    """The strips before this one that are not short."""
    cdef Py_ssize_t tall = plan.tiles_down - plan.short_strips
    return strip // plan.tiles_down * tall + min(strip % plan.tiles_down, tall)


# In a block come first the narrow tiles of its tall strips, then the wide ones of these, the wide
# ones of its short strips, and the narrow ones of these: so each value has its tiles side by side.
cdef struct Range:
    Py_ssize_t first, last

cdef struct Block:
    Py_ssize_t first, last      # strips
    Range all, tall, wide       # its tiles, those of tall strips, and those that are not narrow


cdef inline Block block_at(const Winograd *plan, Py_ssize_t index) noexcept nogil:
    cdef Py_ssize_t first = index * plan.num_strips // plan.num_blocks
    cdef Py_ssize_t last = (index + 1) * plan.num_strips // plan.num_blocks
    cdef Py_ssize_t tall = tall_strips(plan, last) - tall_strips(plan, first)
    cdef Py_ssize_t before = tall * plan.narrow_tiles
    return Block(
        first, last, Range(0, (last - first) * plan.strip_tiles), Range(0, tall * plan.strip_tiles),
        Range(before, before + (last - first) * wide_tiles(plan))
    )


cdef inline Range tiles_of_value(
    const Block *block, Py_ssize_t row, Py_ssize_t column
) noexcept nogil:
    """The tiles of a block that have the value at these points."""
    cdef Range tiles = block.all
    if row == AT_INFINITY:
        tiles.last = block.tall.last
    if column == AT_INFINITY:
        tiles.first = block.wide.first
        tiles.last = min(tiles.last, block.wide.last)
    return tiles


# Where the tiles of a strip begin in a block.
cdef struct StripPlace:
    Py_ssize_t wide, narrow


cdef inline StripPlace place_strip(
    const Winograd *plan, const Block *block, Py_ssize_t strip
) noexcept nogil:
    cdef Py_ssize_t tall = tall_strips(plan, strip) - tall_strips(plan, block.first)
    cdef Py_ssize_t others = strip - block.first - tall
    cdef StripPlace place
    if is_short(plan, strip):
        place.wide = block.tall.last + others * wide_tiles(plan)
        place.narrow = block.wide.last + others * plan.narrow_tiles
    else:
        place.wide = block.wide.first + tall * wide_tiles(plan)
        place.narrow = tall * plan.narrow_tiles
    return place
