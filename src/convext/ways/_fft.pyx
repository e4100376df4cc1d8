"""Convolution by the fast Fourier transform, in tiles that overlap: for large kernels.

Two tiles are transformed at a time, as real and imaginary parts; see docs/fft.md.
"""

cimport numpy as cnp
from libc.string cimport memset

from convext.ways._bands cimport (
    Bands, free_bands, has_small_pixels, init_bands, limits_of, mark_all, mark_band,
    most_of_kernels, no_bands
)
from convext.base._dispatch cimport FftPixels, FftRows, Limits, microkernels
from convext.base._geometry cimport (
    INPUT_GRADIENT, Array4, Convolution, Geometry, extent_of, real, result_of, source_of,
    turned_origin
)
from convext.base._interrupt cimport Interrupt, check_memory, perform, stopped
from convext.base._machine cimport L2_BYTES, L3_BYTES, MAX_KEPT_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_array, aligned_free, apart
from convext.base._tasks cimport (
    Start, Task, Tasks, divide_up, run_tasks, tasks_of, threads_for
)
from convext.ways._direct cimport compute_bands
from convext.ways._tile cimport Positions, all_inside, copy_rectangle, positions
from convext.ways._ways cimport Needs, Way, direct_products, time_of_results

cdef extern from "<math.h>":
    long double cosl(long double x) nogil
    long double sinl(long double x) nogil
    long double acosl(long double x) nogil

cdef enum:
    NUM_SIZES = 10
    MAX_SIZE = 512
    MAX_PIECE = MAX_SIZE // 2   # pixels under a piece of a kernel along an axis
    NUM_TWIDDLES = 6 * MAX_SIZE
    COLUMNS = 16                # results of a row of a tile are a multiple of this: whole vectors

# What the model of the time believes: a start of a few microseconds.
cdef double START = 200000

# For "auto", kernels of fewer taps are not looked at, nor what takes a few starts the direct way:
# to choose takes its time, too.
cdef Py_ssize_t MIN_TAPS = 16
cdef Py_ssize_t MIN_STARTS = 4

# Transformed pixels of a thread, and transformed kernels of all.
cdef Py_ssize_t MAX_VALUE_BYTES = 3 * L3_BYTES // 4
cdef Py_ssize_t MAX_BATCH_BYTES = L2_BYTES
cdef Py_ssize_t MAX_KERNEL_BYTES = L3_BYTES

# Each thread transforms all kernels for itself, unless they take more: as in _winograd.pyx.
cdef Py_ssize_t MAX_OWN_KERNEL_BYTES = L3_BYTES // 8

# With a few tasks for each thread none waits long for the last one.
cdef Py_ssize_t TASKS_PER_THREAD = 3

# For "auto", what the mean square of the pixels of two tiles is at most times the squares of each
# cell: errors are in proportion to its root. A window holds a whole cell.
cdef double MAX_CONTRAST = 8

# Of cells narrower than this all columns count, not those of whole groups.
cdef Py_ssize_t SMALL_CELL = 8

NAME = "a convolution by Fourier transforms"


# ---------------------------------------------------------------- roots of unity

cdef float twiddles_of_float[NUM_TWIDDLES]
cdef double twiddles_of_double[NUM_TWIDDLES]


cdef void fill_twiddles(Py_ssize_t size) noexcept:
    """Fill in the roots of unity for `size` rows, twice as many, and so on."""
    cdef long double pi = acosl(-1), angle
    cdef Py_ssize_t t, k, power
    while size <= MAX_SIZE:
        t = 9 * (size // 2 - 2)
        for k in range(size // 4):
            for power in range(1, 4):
                angle = -2 * pi * (k * power) / size
                twiddles_of_double[t] = <double> cosl(angle)
                twiddles_of_double[t + 1] = <double> sinl(angle)
                twiddles_of_float[t] = <float> twiddles_of_double[t]
                twiddles_of_float[t + 1] = <float> twiddles_of_double[t + 1]
                t += 2
        size *= 2


fill_twiddles(4)
fill_twiddles(12)


# ---------------------------------------------------------------- the plan


cdef inline Py_ssize_t piece_of(Py_ssize_t extent) noexcept nogil:
    """Pixels under a piece of a kernel along an axis."""
    return divide_up(extent, divide_up(extent, MAX_PIECE))


cdef FourierAxis axis_of(
    Py_ssize_t taps, Py_ssize_t dilation, Py_ssize_t origin, Py_ssize_t spread, Py_ssize_t step,
    Py_ssize_t out
) noexcept nogil:
    cdef FourierAxis axis
    axis.taps = taps
    axis.dilation = dilation
    axis.extent = extent_of(taps, dilation)
    axis.pieces = divide_up(axis.extent, MAX_PIECE)
    axis.piece = piece_of(axis.extent)
    axis.origin = origin
    axis.spread = spread
    axis.cell = max(<Py_ssize_t> 1, (axis.piece // spread + 1) // 2)
    axis.step = step
    axis.out = (out - 1) * step + 1
    axis.size = axis.results = axis.tiles = 0
    return axis


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    if convolution.asked:
        return NULL
    if kernels.h * kernels.w < MIN_TAPS:
        return "transforms of kernels of so few taps do not pay"
    if geometry.dilation_h > 1 or geometry.dilation_w > 1:
        return "what dilated kernels see of outliers is not known"
    if convolution.operation == INPUT_GRADIENT and (
        piece_of(kernels.h) < geometry.stride_h or piece_of(kernels.w) < geometry.stride_w
    ):
        return "some windows would hold no output gradient"
    if direct_products(convolution) < MIN_STARTS * START:
        return "there is too little to compute"
    return NULL


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    """Cut the tiles, and return how long they take.

    Beside the direct way, that was found where strides end with the rows: a last one that is
    shorter adds to its products, and here as much.
    """
    cdef Fourier *fourier = <Fourier *> plan
    cdef Py_ssize_t stride_h = convolution.geometry.stride_h
    cdef Py_ssize_t stride_w = convolution.geometry.stride_w
    begin_plan(fourier, convolution)
    choose_sizes(fourier)
    return fourier.time * (
        <double> divide_up(fourier.rows.out, stride_h) * stride_h / fourier.rows.out
        * divide_up(fourier.columns.out, stride_w) * stride_w / fourier.columns.out
    ) + time_of_results(convolution)


cdef bint settles(const Convolution *convolution) noexcept nogil:
    """What shifted sums are said to take was compared with the direct way alone."""
    return True


cdef void begin_plan(Fourier *plan, const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Array4 *result = result_of(convolution)
    plan.micro = microkernels(convolution.itemsize)
    plan.itemsize = convolution.itemsize
    plan.twiddles = (
        <const void *> twiddles_of_float if plan.itemsize == sizeof(float)
        else <const void *> twiddles_of_double
    )
    plan.source = source_of(convolution)[0]
    plan.groups = geometry.groups
    plan.kernels = result.c // plan.groups
    plan.channels = plan.source.c // plan.groups
    plan.swapped = convolution.operation == INPUT_GRADIENT
    if plan.swapped:
        plan.rows = axis_of(
            kernels.h, geometry.dilation_h,
            turned_origin(kernels.h, geometry.dilation_h, geometry.padding_top),
            geometry.stride_h, 1, result.h
        )
        plan.columns = axis_of(
            kernels.w, geometry.dilation_w,
            turned_origin(kernels.w, geometry.dilation_w, geometry.padding_left),
            geometry.stride_w, 1, result.w
        )
    else:
        plan.rows = axis_of(
            kernels.h, geometry.dilation_h, -geometry.padding_top, 1, geometry.stride_h, result.h
        )
        plan.columns = axis_of(
            kernels.w, geometry.dilation_w, -geometry.padding_left, 1, geometry.stride_w, result.w
        )
    plan.planes = plan.channels * plan.rows.pieces * plan.columns.pieces
    plan.bands = NULL
    plan.unfit = NULL


cdef void finish_plan(Fourier *plan, const Convolution *convolution) noexcept nogil:
    plan.squares_size = plan.columns.size * divide_up(
        divide_up(plan.rows.size, plan.rows.spread), plan.rows.cell
    )
    plan.num_threads = threads_for(
        direct_products(convolution), plan.source.n * plan.groups * plan.kernels * plan.pairs,
        convolution.num_threads
    )


# What the pixels of a tile along an axis may be, and the radix-2 steps that each counts as in the
# time of a transform.
cdef Py_ssize_t *SIZES = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512]
cdef double *LEVELS = [4, 5, 5.8, 6, 6.6, 7, 8, 8, 8.6, 9]


cdef bint cut_axis(FourierAxis *axis, Py_ssize_t size, Py_ssize_t multiple) noexcept nogil:
    """Cut an axis into tiles of `size` pixels; False where these are too small."""
    cdef Py_ssize_t results = size - axis.piece + 1
    if results < 1:
        return False
    if results > multiple:
        results = results // multiple * multiple
    axis.size = size
    axis.tiles = divide_up(axis.out, results)
    axis.results = min(results, divide_up(divide_up(axis.out, axis.tiles), multiple) * multiple)
    return True


cdef void choose_sizes(Fourier *plan) noexcept nogil:
    """Cut the output into the tiles that take the least time, see `time_of`."""
    cdef FourierAxis rows, columns
    cdef double time
    cdef Py_ssize_t i, j
    plan.time = -1
    for i in range(NUM_SIZES):
        if not cut_axis(&plan.rows, SIZES[i], 1):
            continue
        for j in range(NUM_SIZES):
            if not cut_axis(&plan.columns, SIZES[j], COLUMNS):
                continue
            cut_planes(plan)
            time = time_of(plan, LEVELS[i] + LEVELS[j])
            if plan.time < 0 or time < plan.time:
                plan.time, rows, columns = time, plan.rows, plan.columns
    plan.rows = rows
    plan.columns = columns
    cut_planes(plan)


cdef inline void cut_planes(Fourier *plan) noexcept nogil:
    cdef Py_ssize_t bytes
    plan.value_size = apart(2 * plan.rows.size * plan.columns.size, plan.itemsize)
    bytes = plan.value_size * <Py_ssize_t> plan.itemsize
    plan.block = min(plan.planes, max(<Py_ssize_t> 1, MAX_VALUE_BYTES // bytes))
    plan.pairs = divide_up(plan.rows.tiles * plan.columns.tiles, 2)
    # Where kernels come from far away, they are fetched for several pairs.
    plan.batch = 1
    if plan.planes * plan.kernels * bytes > L2_BYTES / 2:
        while plan.batch < 4 and 2 * plan.batch <= plan.pairs and (
            2 * plan.batch * plan.block * bytes <= MAX_BATCH_BYTES
        ):
            plan.batch *= 2


cdef double time_of(const Fourier *plan, double levels) noexcept nogil:
    """How long the plan takes, in multiplications of the direct way; a tenth is added.

    Fitted to measurements: docs/fft.md.
    """
    cdef double area = plan.rows.size * plan.columns.size
    # Two threads are not to wait for an odd one.
    cdef Py_ssize_t odd = plan.source.n * plan.groups * plan.pairs % 2
    cdef double pairs = plan.source.n * <double> plan.pairs + 0.5 * odd / plan.groups
    cdef double plane_bytes = plan.value_size * plan.itemsize
    cdef double kernel_bytes = plane_bytes * plan.planes * plan.kernels
    cdef double forward = 42 + 1.8 * levels
    cdef double back = 44 + 0.3 * levels
    cdef double kernel = 3.2 * levels
    cdef double product = 8.7
    if plane_bytes > L2_BYTES:
        forward *= 1.4
        back *= 1.4
    # The kernels come from further away.
    if kernel_bytes * plan.groups > L3_BYTES:
        kernel += 30
    if kernel_bytes > L3_BYTES / 2:
        product = 17
    return 1.1 * (START + area * plan.groups * (
        (pairs * forward + plan.kernels * kernel) * plan.planes
        + pairs * plan.kernels * (
            (plan.planes - 1) * product + divide_up(plan.planes, plan.block) * back
        )
    ))


# ---------------------------------------------------------------- kernels


cdef inline Py_ssize_t num_units(const Fourier *plan) noexcept nogil:
    """A unit is a kernel: of all groups."""
    return plan.groups * plan.kernels


cdef void spread_taps(
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


cdef void transform_kernel(
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


cdef void transform_plane(
    const void *work, Py_ssize_t i, real *scratch, Interrupt *interrupt
) noexcept nogil:
    cdef const Transformation *wanted = <const Transformation *> work
    transform_kernel(
        wanted.plan, wanted.kernels, wanted.first_unit + i // wanted.num_planes,
        wanted.first_plane + i % wanted.num_planes, scratch,
        <real *> wanted.to + i * wanted.plan.value_size
    )


cdef int transform_kernels(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef const Transformation *wanted = <const Transformation *> work
    cdef const Fourier *plan = wanted.plan
    cdef Py_ssize_t count = wanted.num_units * wanted.num_planes
    cdef Tasks tasks = tasks_of(
        work, plan.itemsize, <Task> transform_plane[float], <Task> transform_plane[double], count,
        arrange(plan).values * <Py_ssize_t> plan.itemsize,      # panel and strip
        <int> min(<Py_ssize_t> plan.num_threads, count)
    )
    return run_tasks(&tasks, interrupt)


# ---------------------------------------------------------------- tasks

# The scratch memory of a thread.
cdef struct Scratch:
    Py_ssize_t strip        # a strip of a tile
    Py_ssize_t panel        # pixels of two tiles, where they cannot be read from the image; results
    Py_ssize_t values       # [batch][block] transformed pixels
    Py_ssize_t sums         # [batch] of products
    Py_ssize_t squares      # [2][rows of cells][columns]
    Py_ssize_t size


cdef Scratch arrange(const Fourier *plan) noexcept nogil:
    cdef Scratch layout
    layout.strip = 0
    layout.panel = 2 * plan.rows.size * plan.micro.lanes
    layout.values = layout.panel + 2 * plan.rows.size * plan.columns.size
    layout.sums = layout.values + plan.batch * plan.block * plan.value_size
    layout.squares = layout.sums + plan.batch * plan.value_size
    layout.size = layout.squares + (2 * plan.squares_size if plan.bands != NULL else 0)
    return layout


# Where the results of a tile lie.
cdef struct Place:
    Py_ssize_t top, left, height, width


cdef Place place_of(const Fourier *plan, Py_ssize_t tile) noexcept nogil:
    """The place of a tile; none (no height) for the missing one of the last pair."""
    cdef Place place
    place.top = tile // plan.columns.tiles * plan.rows.results
    place.left = tile % plan.columns.tiles * plan.columns.results
    place.height = max(<Py_ssize_t> 0, min(plan.rows.results, plan.rows.out - place.top))
    place.width = min(plan.columns.results, plan.columns.out - place.left)
    if place.height == 0:
        place.width = 0
    return place


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


cdef void spread_pixels(
    const Fourier *plan, const real *channel, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, Py_ssize_t num_columns, real *panel
) noexcept nogil:
    """Copy pixels of a channel, zeros between them and outside; `top`, `left` count these, too."""
    cdef Py_ssize_t down = plan.rows.spread, across = plan.columns.spread
    cdef Py_ssize_t first = divide_up(max(<Py_ssize_t> 0, left), across)
    cdef Py_ssize_t last = min(plan.source.w, divide_up(left + num_columns, across))
    cdef Py_ssize_t y, x
    memset(panel, 0, num_rows * plan.columns.size * sizeof(real))
    for y in range(
        divide_up(max(<Py_ssize_t> 0, top), down),
        min(plan.source.h, divide_up(max(<Py_ssize_t> 0, top + num_rows), down))
    ):
        for x in range(first, last):
            panel[(y * down - top) * plan.columns.size + x * across - left] = (
                channel[y * plan.source.h_stride + x * plan.source.w_stride]
            )


cdef FftPixels pixels_of(
    const Fourier *plan, const real *channel, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, Py_ssize_t num_columns, real *panel
) noexcept nogil:
    """Pixels of a channel, from the image where they all lie in it, else copied to `panel`."""
    cdef const Array4 *source = &plan.source
    cdef Positions rows = positions(top, 1, num_rows, source.h)
    cdef Positions columns = positions(left, 1, num_columns, source.w)
    cdef FftPixels pixels = FftPixels(panel, plan.columns.size, num_rows, num_columns)
    if plan.rows.spread > 1 or plan.columns.spread > 1:
        spread_pixels(plan, channel, top, left, num_rows, num_columns, panel)
    elif source.w_stride == 1 and all_inside(&rows, &columns):
        pixels.data = <void *> (channel + top * source.h_stride + left)
        pixels.pitch = source.h_stride
    else:
        copy_rectangle(plan.micro, source, channel, &rows, &columns, panel, pixels.pitch)
    return pixels


cdef Py_ssize_t read_tiles(
    const Fourier *plan, Py_ssize_t sample, Py_ssize_t group, Py_ssize_t plane,
    const Place *places, real *panel, FftPixels *tiles
) noexcept nogil:
    """Find the pixels of a pair of tiles for a plane; return how many columns they have."""
    cdef const FourierAxis *rows = &plan.rows
    cdef const FourierAxis *columns = &plan.columns
    cdef Py_ssize_t lanes = plan.micro.lanes
    cdef Py_ssize_t channel = group * plan.channels + plane // (rows.pieces * columns.pieces)
    cdef Py_ssize_t top = rows.origin + plane // columns.pieces % rows.pieces * rows.piece
    cdef Py_ssize_t left = columns.origin + plane % columns.pieces * columns.piece
    cdef Py_ssize_t num_columns = divide_up(
        max(places[0].width, places[1].width) + columns.piece - 1, lanes
    ) * lanes
    cdef Py_ssize_t i, num_rows
    cdef const real *image = <const real *> plan.source.data + (
        sample * plan.source.n_stride + channel * plan.source.c_stride
    )
    for i in range(2):
        num_rows = places[i].height + rows.piece - 1 if places[i].height > 0 else 0
        tiles[i] = pixels_of(
            plan, image, top + places[i].top, left + places[i].left, num_rows, num_columns,
            panel + i * rows.size * columns.size
        )
    return num_columns


cdef void transform_pixels(
    const Fourier *plan, Py_ssize_t sample, Py_ssize_t group, Py_ssize_t plane,
    const Place *places, real *scratch, real *to, Judgement *judgement
) noexcept nogil:
    """Transform the pixels of a pair of tiles for a plane; add up their squares."""
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t i
    cdef FftPixels[2] tiles
    cdef Py_ssize_t num_columns = read_tiles(
        plan, sample, group, plane, places, scratch + layout.panel, tiles
    )
    cdef FftRows[2] rows
    cdef bint judged = plan.bands != NULL
    for i in range(2 if judged else 0):
        rows[i] = judgement.cells[i].rows
    judgement.total += plan.micro.fft_forward(
        plan.rows.size, plan.columns.size, tiles, num_columns, plan.twiddles,
        scratch + layout.strip, to, rows, scratch + layout.squares if judged else NULL,
        plan.squares_size
    )


cdef inline bint in_pieces(const Fourier *plan) noexcept nogil:
    """Whether planes are pieces of kernels: each is judged for itself."""
    return plan.rows.pieces * plan.columns.pieces > 1


cdef Cells cells_of(const Fourier *plan, Py_ssize_t plane, const Place *place) noexcept nogil:
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


cdef void begin_judgement(
    const Fourier *plan, Py_ssize_t plane, const Place *places, Judgement *judgement,
    real *squares
) noexcept nogil:
    cdef Cells *cells = judgement.cells
    cdef Py_ssize_t i, rows
    judgement.total = 0
    for i in range(2):
        cells[i] = cells_of(plan, plane, &places[i])
        rows = divide_up(cells[i].rows.pairs, cells[i].rows.group)
        memset(
            squares + i * plan.squares_size, 0, rows * plan.columns.size * sizeof(real)
        )


cdef double bound_cells(
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


cdef void add_squares(
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


cdef double least_cell(
    const Fourier *plan, const Cells *cells, bint exact, const real *squares
) noexcept nogil:
    """The least squares of a cell, or a bound; 0 where windows meet no pixel."""
    if cells.count == 0:
        return 0
    if not exact:
        return bound_cells(plan, cells, squares)
    return plan.micro.least_window(
        cells.count, cells.end - cells.begin - cells.width + 1, cells.width,
        squares + cells.begin, plan.columns.size
    )


cdef bint are_even(
    const Fourier *plan, const Place *places, const Judgement *judgement, bint exact,
    const real *squares
) noexcept nogil:
    """Whether each cell of two tiles has enough of their squares."""
    cdef double most = MAX_CONTRAST * plan.rows.size * plan.columns.size
    cdef Py_ssize_t i
    for i in range(2):
        if places[i].height > 0 and not judgement.total <= most * least_cell(
            plan, &judgement.cells[i], exact, squares + i * plan.squares_size
        ):
            return False
    return True


cdef void judge_pair(
    const Fourier *plan, Py_ssize_t sample, Py_ssize_t group, Py_ssize_t first_plane,
    Py_ssize_t last_plane, Py_ssize_t pair, const Place *places, Judgement *judgement,
    real *scratch
) noexcept nogil:
    """Note the bands of two tiles if they must be computed directly."""
    cdef Limits limits = limits_of(plan.itemsize, 0)
    cdef Scratch layout = arrange(plan)
    cdef real *squares = scratch + layout.squares
    cdef double total = judgement.total
    cdef Py_ssize_t plane, i
    cdef FftPixels[2] tiles
    cdef bint bad = not total <= limits.most
    # Some rows do, as a rule.
    if not bad and not are_even(plan, places, judgement, False, squares):
        memset(squares, 0, 2 * plan.squares_size * sizeof(real))
        for plane in range(first_plane, last_plane):
            read_tiles(plan, sample, group, plane, places, scratch + layout.panel, tiles)
            for i in range(2):
                add_squares(
                    plan, &tiles[i], &judgement.cells[i], squares + i * plan.squares_size
                )
        bad = not are_even(plan, places, judgement, True, squares)
    for i in range(2):
        if places[i].height > 0 and (bad or (
            total < limits.least and has_small_pixels_under(
                plan, sample, group, &places[i], limits.least, scratch
            )
        )):
            mark_band(plan.bands, sample, (2 * pair + i) // plan.columns.tiles)


cdef bint has_small_pixels_under(
    const Fourier *plan, Py_ssize_t sample, Py_ssize_t group, const Place *place, double least,
    const real *scratch
) noexcept nogil:
    """Whether a tile may have squares that vanished; `scratch` tells the type."""
    cdef Py_ssize_t top = (plan.rows.origin + place.top) // plan.rows.spread
    cdef Py_ssize_t left = (plan.columns.origin + place.left) // plan.columns.spread
    cdef const real *image = <const real *> plan.source.data + (
        sample * plan.source.n_stride + group * plan.channels * plan.source.c_stride
    )
    return has_small_pixels(
        &plan.source, image, plan.channels, top, top + place.height + plan.rows.extent,
        left, left + plan.columns.size + plan.columns.extent, least
    )


cdef void keep_wanted(
    const Fourier *plan, const Place *place, const FftPixels *results, const Array4 *out,
    real *to, bint accumulate
) noexcept nogil:
    """Copy the results of a tile that are wanted to `to`, where result (0, 0) lies."""
    cdef Py_ssize_t y, x, step = plan.columns.step
    cdef Py_ssize_t first = divide_up(place.left, step)
    cdef Py_ssize_t last = divide_up(place.left + place.width, step)
    cdef const real *row = <const real *> results.data
    cdef real *to_row
    for y in range(place.top, place.top + place.height):
        if y % plan.rows.step == 0:
            to_row = to + y // plan.rows.step * out.h_stride
            if accumulate:
                for x in range(first, last):
                    to_row[x * out.w_stride] += row[x * step - place.left]
            else:
                for x in range(first, last):
                    to_row[x * out.w_stride] = row[x * step - place.left]
        row += results.pitch


cdef void finish_pair(
    const Fourier *plan, const Place *places, const Array4 *out, real *to, double bias,
    bint accumulate, const real *sums, real *scratch
) noexcept nogil:
    """Transform the sums of a pair of tiles to results; `to` is where result (0, 0) lies."""
    cdef Scratch layout = arrange(plan)
    cdef bint all_wanted = plan.rows.step == 1 and plan.columns.step == 1 and out.w_stride == 1
    cdef FftPixels tile[2]
    cdef Py_ssize_t i
    for i in range(2):
        tile[i].rows = places[i].height
        tile[i].columns = places[i].width
        if all_wanted:
            tile[i].data = to + places[i].top * out.h_stride + places[i].left
            tile[i].pitch = out.h_stride
        else:
            tile[i].data = scratch + layout.panel + i * plan.rows.size * plan.columns.size
            tile[i].pitch = plan.columns.size
    plan.micro.fft_results(
        plan.rows.size, plan.columns.size, sums, bias, plan.twiddles,
        scratch + layout.strip, tile, accumulate and all_wanted
    )
    if not all_wanted:
        for i in range(2):
            keep_wanted(plan, &places[i], &tile[i], out, to, accumulate)


# What the tasks read, and where they write: results of some units, for some planes.
cdef struct Part:
    const Fourier *plan
    const Array4 *kernels
    const void *transformed         # of the part; NULL: each thread transforms all for itself
    const void *bias
    const Array4 *out
    Py_ssize_t first_unit, last_unit
    Py_ssize_t first_plane, last_plane
    Py_ssize_t unit_size            # from the transformed kernels of a unit to the next one's
    Py_ssize_t shares               # of the kernels of a group, computed by tasks of their own


cdef inline Py_ssize_t num_batches(const Fourier *plan) noexcept nogil:
    """Whole batches of pairs, and each pair of the rest."""
    return plan.pairs // plan.batch + plan.pairs % plan.batch


cdef void convolve_batch(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute a batch of pairs of tiles of a sample for a share of the kernels of a group."""
    cdef const Part *part = <const Part *> work
    cdef const Fourier *plan = part.plan
    cdef const real *transformed = <const real *> part.transformed
    cdef const Array4 *out = part.out
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t first_group = part.first_unit // plan.kernels
    cdef Py_ssize_t groups = (part.last_unit - 1) // plan.kernels + 1 - first_group
    cdef Py_ssize_t share = task % part.shares
    cdef Py_ssize_t group = first_group + task // part.shares % groups
    cdef Py_ssize_t batch = task // part.shares // groups % num_batches(plan)
    cdef Py_ssize_t sample = task // part.shares // groups // num_batches(plan)
    cdef Py_ssize_t first = max(part.first_unit, group * plan.kernels)
    cdef Py_ssize_t units = min(part.last_unit, (group + 1) * plan.kernels) - first
    cdef Py_ssize_t num_planes = part.last_plane - part.first_plane
    cdef Py_ssize_t num_pairs = 1, pair = plan.pairs - num_batches(plan) + batch, i, p, unit
    cdef Py_ssize_t pair_stride = plan.block * plan.value_size
    cdef double offset
    cdef Judgement judgement
    cdef Place[8] places
    if transformed == NULL:
        transformed = scratch + layout.size
    if batch < plan.pairs // plan.batch:
        num_pairs = plan.batch
        pair = batch * plan.batch
    for i in range(2 * num_pairs):
        places[i] = place_of(plan, 2 * pair + i)
    for i in range(num_pairs):
        for p in range(num_planes):
            if stopped(interrupt):
                return
            if plan.bands != NULL and (p == 0 or in_pieces(plan)):
                begin_judgement(
                    plan, part.first_plane + p, &places[2 * i], &judgement,
                    scratch + layout.squares
                )
            transform_pixels(
                plan, sample, group, part.first_plane + p, &places[2 * i], scratch,
                scratch + layout.values + i * pair_stride + p * plan.value_size, &judgement
            )
            if plan.bands != NULL and (p + 1 == num_planes or in_pieces(plan)):
                judge_pair(
                    plan, sample, group, part.first_plane + (p if in_pieces(plan) else 0),
                    part.first_plane + p + 1, pair + i, &places[2 * i], &judgement, scratch
                )
    for unit in range(
        first + share * units // part.shares, first + (share + 1) * units // part.shares
    ):
        if stopped(interrupt):
            return
        plan.micro.fft_products(
            plan.rows.size, plan.columns.size, num_pairs, num_planes, scratch + layout.values,
            pair_stride, plan.value_size,
            transformed + (unit - part.first_unit) * part.unit_size, plan.value_size,
            plan.twiddles, scratch + layout.sums, plan.value_size
        )
        offset = 0
        if part.bias != NULL and part.first_plane == 0:
            offset = (<const real *> part.bias)[unit]
        for i in range(num_pairs):
            finish_pair(
                plan, &places[2 * i], out,
                <real *> out.data + sample * out.n_stride + unit * out.c_stride,
                offset, part.first_plane > 0, scratch + layout.sums + i * plan.value_size, scratch
            )


# ---------------------------------------------------------------- runs


cdef Py_ssize_t num_shares(
    const Fourier *plan, Py_ssize_t units, Py_ssize_t groups
) noexcept nogil:
    """How many tasks share the kernels of a group; each transforms the pixels anew."""
    cdef Py_ssize_t tasks = plan.source.n * num_batches(plan) * groups
    if plan.num_threads == 1:
        return 1
    return min(
        min(plan.kernels, units), divide_up(TASKS_PER_THREAD * plan.num_threads, tasks)
    )


cdef inline Py_ssize_t size_of_all_kernels(const Fourier *plan) noexcept nogil:
    """Elements of the transformed kernels."""
    return num_units(plan) * plan.planes * plan.value_size


cdef bint have_own_kernels(const Fourier *plan) noexcept nogil:
    """Whether each thread transforms all kernels for itself: where it meets all, and they fit."""
    cdef Py_ssize_t bytes = size_of_all_kernels(plan) * <Py_ssize_t> plan.itemsize
    return (
        plan.groups == 1 and num_shares(plan, plan.kernels, 1) == 1
        and plan.planes <= plan.block and bytes <= MAX_OWN_KERNEL_BYTES
    )


cdef void transform_own_kernels(const void *work, real *scratch) noexcept nogil:
    """Transform all kernels, behind the scratch memory of a task."""
    cdef const Part *part = <const Part *> work
    cdef const Fourier *plan = part.plan
    cdef Transformation all = Transformation(
        plan, part.kernels, 0, num_units(plan), 0, plan.planes, scratch + arrange(plan).size
    )
    cdef Py_ssize_t i
    for i in range(all.num_units * all.num_planes):
        transform_plane(&all, i, scratch, NULL)


cdef int run_part(Part *part, Interrupt *interrupt) noexcept nogil:
    cdef const Fourier *plan = part.plan
    cdef Py_ssize_t first_group = part.first_unit // plan.kernels
    cdef Py_ssize_t groups = (part.last_unit - 1) // plan.kernels + 1 - first_group
    cdef Py_ssize_t size = arrange(plan).size
    cdef Tasks batches
    part.shares = num_shares(plan, part.last_unit - part.first_unit, groups)
    if part.transformed == NULL:
        size += size_of_all_kernels(plan)
    batches = tasks_of(
        part, plan.itemsize, <Task> convolve_batch[float], <Task> convolve_batch[double],
        plan.source.n * num_batches(plan) * groups * part.shares,
        size * <Py_ssize_t> plan.itemsize, plan.num_threads
    )
    if part.transformed == NULL:
        batches.start = (
            <Start> transform_own_kernels[float] if plan.itemsize == sizeof(float)
            else <Start> transform_own_kernels[double]
        )
    return run_tasks(&batches, interrupt)


cdef inline Py_ssize_t shared_units(const Fourier *plan) noexcept nogil:
    """Units that are transformed at a time, for all threads."""
    cdef Py_ssize_t bytes = plan.block * plan.value_size * <Py_ssize_t> plan.itemsize
    return min(num_units(plan), max(<Py_ssize_t> 1, MAX_KERNEL_BYTES // bytes))


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    """Compute all of a part, as many kernels at a time as fit unless they are kept."""
    cdef Part part = (<const Part *> work)[0]
    cdef const Fourier *plan = part.plan
    cdef const char *kept = <const char *> part.transformed
    cdef Py_ssize_t plane_bytes = plan.value_size * <Py_ssize_t> plan.itemsize
    cdef Py_ssize_t units = num_units(plan) if kept != NULL else shared_units(plan)
    cdef void *memory = NULL
    cdef Transformation wanted
    cdef int status = 0
    if kept == NULL and not have_own_kernels(plan):
        memory = aligned_alloc(units * plan.block * plane_bytes, 1)
        if memory == NULL:
            return -1
    while part.first_plane < plan.planes and status == 0:
        part.last_plane = min(plan.planes, part.first_plane + plan.block)
        part.unit_size = (part.last_plane - part.first_plane) * plan.value_size
        part.transformed = memory
        if kept != NULL:
            part.unit_size = plan.planes * plan.value_size
            part.transformed = kept + part.first_plane * plane_bytes
        part.first_unit = 0
        while part.first_unit < num_units(plan) and status == 0:
            part.last_unit = min(num_units(plan), part.first_unit + units)
            if memory != NULL:
                wanted = Transformation(
                    plan, part.kernels, part.first_unit, part.last_unit - part.first_unit,
                    part.first_plane, part.last_plane - part.first_plane, memory
                )
                status = transform_kernels(&wanted, interrupt)
            if status == 0:
                status = run_part(&part, interrupt)
            part.first_unit = part.last_unit
        part.first_plane = part.last_plane
    aligned_free(memory)
    return status


cdef int note_bands(Fourier *plan, Bands *bands) except -1:
    """Let tiles that are not safe be noted in `bands`, unless that is NULL."""
    cdef Py_ssize_t i
    plan.bands = bands
    if bands == NULL:
        return 0
    check_memory(init_bands(bands, plan.source.n, plan.rows.tiles), NAME)
    for i in range(plan.rows.tiles + 1):
        bands.row[i] = divide_up(
            min(i * plan.rows.results, plan.rows.out), plan.rows.step
        )
    return 0


cdef int convolve_by_fft(
    Fourier *plan, const Array4 *kernels, const void *bias, const Array4 *out, dict kept,
    Bands *bands
) except -1:
    # Must live as long as it is read.
    cdef cnp.ndarray memory = None if kept is None else keep_fft_kernels(plan, kernels, kept)
    cdef void *transformed = NULL if memory is None else cnp.PyArray_DATA(memory)
    cdef Part whole = Part(
        plan, kernels, transformed, bias, out, 0, num_units(plan), 0, plan.planes, 0, 0
    )
    cdef char unfit = False
    if transformed != NULL:
        unfit = (<char *> transformed)[cnp.PyArray_SIZE(memory) - 1]
    plan.unfit = &unfit
    note_bands(plan, bands)
    perform(NAME, convolve, &whole)
    if unfit and bands != NULL:
        mark_all(bands)
    return 0


# ---------------------------------------------------------------- kept kernels


cdef object keep_fft_kernels(Fourier *plan, const Array4 *kernels, dict kept):
    cdef Py_ssize_t units = num_units(plan)
    cdef Py_ssize_t size = units * plan.planes * plan.value_size * <Py_ssize_t> plan.itemsize
    cdef tuple key = (
        "fft", plan.itemsize, plan.micro.lanes, plan.rows.size, plan.columns.size
    )
    cdef cnp.ndarray memory = kept.get(key)
    cdef Transformation all
    if memory is not None or size > MAX_KEPT_BYTES:
        return memory
    # And whether they are unfit.
    memory = aligned_array(size + 1)
    cdef void *to = cnp.PyArray_DATA(memory)
    plan.unfit = <char *> to + size
    plan.unfit[0] = False
    all = Transformation(plan, kernels, 0, units, 0, plan.planes, to)
    perform("prepared kernels", transform_kernels, &all)
    # Another thread may have transformed them meanwhile.
    return kept.setdefault(key, memory)


# ---------------------------------------------------------------- the way


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef Bands bands = no_bands()
    finish_plan(<Fourier *> plan, convolution)
    try:
        convolve_by_fft(
            <Fourier *> plan, &convolution.kernels, convolution.bias, result_of(convolution), kept,
            NULL if convolution.asked else &bands
        )
        compute_bands(convolution, &bands)
    finally:
        free_bands(&bands)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    finish_plan(<Fourier *> plan, convolution)
    keep_fft_kernels(<Fourier *> plan, &convolution.kernels, kept)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef Fourier *fourier = <Fourier *> plan
    cdef Bands bands
    finish_plan(fourier, convolution)
    fourier.bands = NULL if convolution.asked else &bands
    needs.num_threads = fourier.num_threads
    needs.of_thread = arrange(fourier).size * convolution.itemsize
    needs.shared = 0
    if have_own_kernels(fourier):
        needs.of_thread += size_of_all_kernels(fourier) * convolution.itemsize
    else:
        needs.shared = (
            shared_units(fourier) * fourier.block * fourier.value_size * convolution.itemsize
        )
    return True


cdef Way fft_way() noexcept:
    return Way("fft", objection, time, settles, NULL, run_way, keep, measure)
