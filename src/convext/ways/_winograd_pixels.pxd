# The pixels of Winograd's tiles: laid out in panels, and transformed.

from convext.base._geometry cimport real
from convext.ways._winograd_plan cimport Winograd
from convext.ways._winograd_strips cimport Block

# Lay out pixels of some channels, channel by channel side by side, zeros outside; where `beside`,
# what lies beside these stays. Unless `squares` is NULL, add theirs.
cdef void fill_panel(
    const Winograd *plan, const real *image, Py_ssize_t channels, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, real *panel, bint beside, real *squares
) noexcept nogil

# Transform the pixels of a block; `lines` is scratch memory for phases, `squares` for the check of
# the tiles, unless `plan.bands` and `plan.squares` are NULL.
cdef void transform_block(
    const Winograd *plan, Py_ssize_t group, const Block *block, real *panel, real *lines,
    real *squares, real *values
) noexcept nogil
