# The kernels of convolutions by Fourier transforms: a unit is one of them, of all groups.

from libc.string cimport memset

from convext.base._dispatch cimport FftPixels
from convext.base._geometry cimport Array4, real
from convext.base._interrupt cimport Interrupt
from convext.base._tasks cimport Task, Tasks, run_tasks, tasks_of
from convext.ways._bands cimport most_of_kernels
from convext.ways._fft_plan cimport Fourier, FourierAxis


cdef inline void spread_taps(
    const Fourier *plan, Py_ssize_t unit, Py_ssize_t plane, real *panel
) noexcept nogil:
    """Write the taps of a piece of a kernel, for a channel, into `panel`.

    They are divided by what the transforms there and back multiply results by.
    """
    cdef const FourierAxis *rows = &plan.rows
    cdef const FourierAxis *columns = &plan.columns
    cdef const Array4 *kernels = &plan.weights.of_group
    cdef Py_ssize_t channel = plane // (rows.pieces * columns.pieces)
    cdef Py_ssize_t top = plane // columns.pieces % rows.pieces * rows.piece
    cdef Py_ssize_t left = plane % columns.pieces * columns.piece
    cdef Py_ssize_t i, j, y, x
    cdef real scale = <real> 1 / (rows.size * columns.size)
    cdef const real *taps = <const real *> kernels.data + (
        unit // plan.kernels * plan.weights.group_stride
        + unit % plan.kernels * kernels.n_stride + channel * kernels.c_stride
    )
    cdef double squares = 0
    cdef real tap
    memset(panel, 0, rows.piece * columns.size * sizeof(real))
    for i in range(rows.taps):
        y = (rows.taps - 1 - i if plan.swapped else i) * rows.dilation - top
        if not 0 <= y < rows.piece:
            continue
        for j in range(columns.taps):
            x = (columns.taps - 1 - j if plan.swapped else j) * columns.dilation - left
            if 0 <= x < columns.piece:
                tap = taps[i * kernels.h_stride + j * kernels.w_stride]
                squares += <double> tap * tap
                panel[y * columns.size + x] = scale * tap
    if not squares <= most_of_kernels(plan.itemsize):
        plan.unfit[0] = True


# The transformed kernels of the units first_unit <= unit < last_unit, for such planes.
cdef struct Kernels:
    const Fourier *plan
    void *values                # NULL: each thread transforms all for itself
    Py_ssize_t first_unit, last_unit
    Py_ssize_t first_plane, last_plane
    Py_ssize_t unit_size        # elements from those of a unit to the next one's


cdef inline void transform_plane(
    const void *work, Py_ssize_t i, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Transform a piece of a kernel for a channel; the conjugate, since this is a correlation."""
    cdef const Kernels *wanted = <const Kernels *> work
    cdef const Fourier *plan = wanted.plan
    cdef Py_ssize_t num_planes = wanted.last_plane - wanted.first_plane
    cdef real *to = <real *> wanted.values + i * plan.value_size
    cdef FftPixels tile[2]
    spread_taps(
        plan, wanted.first_unit + i // num_planes, wanted.first_plane + i % num_planes,
        scratch + plan.layout.panel
    )
    tile[0].data = scratch + plan.layout.panel
    tile[0].pitch = tile[0].columns = plan.columns.size
    tile[0].rows = plan.rows.piece
    tile[1] = tile[0]
    tile[1].rows = 0
    plan.micro.fft_forward(
        plan.rows.size, plan.columns.size, tile, plan.columns.piece, plan.twiddles,
        scratch + plan.layout.strip, to, NULL, NULL, 0
    )
    plan.micro.fft_conjugate(plan.rows.size * plan.columns.size, to)


cdef inline int transform_kernels(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef const Kernels *wanted = <const Kernels *> work
    cdef const Fourier *plan = wanted.plan
    cdef Py_ssize_t count = (
        (wanted.last_unit - wanted.first_unit) * (wanted.last_plane - wanted.first_plane)
    )
    cdef Tasks tasks = tasks_of(
        work, plan.itemsize, <Task> transform_plane[float], <Task> transform_plane[double], count,
        plan.layout.values * <Py_ssize_t> plan.itemsize,        # panel and strip
        <int> min(<Py_ssize_t> plan.num_threads, count)
    )
    return run_tasks(&tasks, interrupt)
