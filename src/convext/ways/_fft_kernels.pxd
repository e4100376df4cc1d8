# The kernels of convolutions by Fourier transforms: a unit is one of them, of all groups.

from libc.string cimport memset

from convext.base._dispatch cimport FftPixels
from convext.base._geometry cimport Array4, real
from convext.base._interrupt cimport Interrupt
from convext.base._tasks cimport Task, Tasks, run_tasks, tasks_of
from convext.ways._bands cimport most_of_kernels
from convext.ways._fft_plan cimport Fourier, FourierAxis, Scratch, arrange


cdef inline void spread_taps(
    const Fourier *plan, const Array4 *kernels, Py_ssize_t unit, Py_ssize_t plane, real *panel
) noexcept nogil:
    """Write the taps of a piece of a kernel, for a channel, into `panel`.

    They are divided by what the transforms there and back multiply results by.
    """
    cdef const FourierAxis *rows = &plan.rows
    cdef const FourierAxis *columns = &plan.columns
    cdef Py_ssize_t channel = plane // (rows.pieces * columns.pieces)
    cdef Py_ssize_t top = plane // columns.pieces % rows.pieces * rows.piece
    cdef Py_ssize_t left = plane % columns.pieces * columns.piece
    cdef Py_ssize_t group = unit // plan.kernels, kernel = unit % plan.kernels
    cdef Py_ssize_t i, j, y, x
    cdef real scale = <real> 1 / (rows.size * columns.size)
    cdef const real *taps = <const real *> kernels.data
    if plan.swapped:
        taps += (group * plan.channels + channel) * kernels.n_stride + kernel * kernels.c_stride
    else:
        taps += unit * kernels.n_stride + channel * kernels.c_stride
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


cdef inline void transform_kernel(
    const Fourier *plan, const Array4 *kernels, Py_ssize_t unit, Py_ssize_t plane, real *scratch,
    real *to
) noexcept nogil:
    """Transform a piece of a kernel for a channel; the conjugate, since this is a correlation."""
    cdef Scratch layout = arrange(plan)
    cdef FftPixels tile[2]
    spread_taps(plan, kernels, unit, plane, scratch + layout.panel)
    tile[0].data = scratch + layout.panel
    tile[0].pitch = tile[0].columns = plan.columns.size
    tile[0].rows = plan.rows.piece
    tile[1] = tile[0]
    tile[1].rows = 0
    plan.micro.fft_forward(
        plan.rows.size, plan.columns.size, tile, plan.columns.piece, plan.twiddles,
        scratch + layout.strip, to, NULL, NULL, 0
    )
    plan.micro.fft_conjugate(plan.rows.size * plan.columns.size, to)


# What is to be transformed: planes of some units.
cdef struct Transformation:
    const Fourier *plan
    const Array4 *kernels
    Py_ssize_t first_unit, num_units
    Py_ssize_t first_plane, num_planes
    void *to


cdef inline void transform_plane(
    const void *work, Py_ssize_t i, real *scratch, Interrupt *interrupt
) noexcept nogil:
    cdef const Transformation *wanted = <const Transformation *> work
    transform_kernel(
        wanted.plan, wanted.kernels, wanted.first_unit + i // wanted.num_planes,
        wanted.first_plane + i % wanted.num_planes, scratch,
        <real *> wanted.to + i * wanted.plan.value_size
    )


cdef inline int transform_kernels(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef const Transformation *wanted = <const Transformation *> work
    cdef const Fourier *plan = wanted.plan
    cdef Py_ssize_t count = wanted.num_units * wanted.num_planes
    cdef Tasks tasks = tasks_of(
        work, plan.itemsize, <Task> transform_plane[float], <Task> transform_plane[double], count,
        arrange(plan).values * <Py_ssize_t> plan.itemsize,      # panel and strip
        <int> min(<Py_ssize_t> plan.num_threads, count)
    )
    return run_tasks(&tasks, interrupt)
