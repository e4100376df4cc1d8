"""The sums, over all patches of images, of the products of every two pixels of a patch.

Let G[t, u] be the sum for two taps t = (c, i, j) and u = (c', i', j'). For a fixed t, and all u, it
is a kernel gradient: that of the images, where the output gradient is channel c of the images
themselves, from row i * dilation and column j * dilation on. Summed so for each t, this is the
plain product of the matrix of patches with itself.

With a stride of 1, entries of the same displacement between t and u sum the same products of
pixels, over windows that are shifted by a few rows and columns. So the sum over the core, which all
windows share, is computed once for each displacement: one kernel gradient with 2 kw - 1 columns,
whose output gradient is the core. What is left are rectangles at the edges, taken with those
windows alone that hold them. Nothing is subtracted, so nothing cancels.

G is symmetric: rows i' >= i are computed, the others copied.
"""

cimport numpy as cnp

from convext.base._arrays cimport describe
from convext.base._geometry cimport Array4, Geometry, extent_of
from convext.base._interrupt cimport Interrupt, perform, stopped
from convext.gradient._gradient_plan cimport KernelGradient
from convext.gradient._kernel_gradient cimport (
    free_kernel_gradient, init_kernel_gradient, run_kernel_gradient
)
from convext.base._scratch cimport aligned_alloc, aligned_free
from convext.base._tasks cimport ENOUGH_TASKS, Tasks, run_tasks, tasks_of, threads_for

# What a rectangle costs beside its products, in products.
cdef double PRODUCTS_PER_RECTANGLE = 20000

# What is to be computed: G of each unit, which is `samples_of_unit` samples.
cdef struct Patches:
    Array4 images
    Py_ssize_t kernel_h, kernel_w
    Py_ssize_t out_h, out_w
    Py_ssize_t stride_h, stride_w, dilation_h, dilation_w
    Py_ssize_t samples_of_unit, num_units
    int num_threads
    double *products                # [units][taps][taps]
    bint by_displacement

# Pixels of a first tap in the rows first_i to end_i, exclusive; second taps lie in the same row, or
# in one of reach - 1 rows below.
cdef struct Rows:
    Py_ssize_t top, height
    Py_ssize_t first_i, end_i
    Py_ssize_t reach

# The same of columns; second taps lie from `shift` columns before the first one's on.
cdef struct Columns:
    Py_ssize_t left, width
    Py_ssize_t first_j, end_j
    Py_ssize_t shift, reach

cdef struct Units:
    Py_ssize_t first, end


cdef Array4 view(
    const Array4 *images, Py_ssize_t num_samples, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t height, Py_ssize_t width, Py_ssize_t stride_h, Py_ssize_t stride_w, bint transposed
) noexcept nogil:
    """A rectangle of the first images; `height` and `width` count its rows and columns."""
    cdef Array4 part = images[0]
    part.data = <double *> images.data + top * images.h_stride + left * images.w_stride
    part.n = num_samples
    part.h, part.w = height, width
    part.h_stride *= stride_h
    part.w_stride *= stride_w
    if transposed:
        part.h, part.w = part.w, part.h
        part.h_stride, part.w_stride = part.w_stride, part.h_stride
    return part


cdef void spread(
    const Patches *patches, const Rows *rows, const Columns *columns, const double *sums,
    bint transposed, double *products
) noexcept nogil:
    """Add the sums of a rectangle, for each displacement, to all entries that have it."""
    cdef Py_ssize_t kw = patches.kernel_w
    cdef Py_ssize_t plane = patches.kernel_h * kw
    cdef Py_ssize_t taps = patches.images.c * plane
    cdef Py_ssize_t channels = patches.images.c
    cdef Py_ssize_t down = 1 if transposed else columns.reach
    cdef Py_ssize_t across = rows.reach if transposed else 1
    cdef Py_ssize_t c, d, i, j, u, v, first_v, end_v
    cdef const double *source
    cdef double *to
    for c in range(channels):
        for d in range(channels):
            for i in range(rows.first_i, rows.end_i):
                for u in range(min(rows.reach, patches.kernel_h - i)):
                    source = sums + (c * channels + d) * rows.reach * columns.reach + u * down
                    for j in range(columns.first_j, columns.end_j):
                        to = products + (c * plane + i * kw + j) * taps + (
                            d * plane + (i + u) * kw + j - columns.shift
                        )
                        first_v = max(0, columns.shift - j)
                        end_v = min(columns.reach, kw + columns.shift - j)
                        for v in range(first_v, end_v):
                            to[v] += source[v * across]


cdef int add_rectangle(
    const Patches *patches, const Rows *rows, const Columns *columns, Units units,
    bint transposed, int num_threads, Interrupt *interrupt
) noexcept nogil:
    """Add what the pixels of a rectangle contribute to G of some units. -1: no memory."""
    cdef const Array4 *images = &patches.images
    cdef Geometry geometry = Geometry(
        patches.stride_h, patches.stride_w, 0, 0, patches.dilation_h, patches.dilation_w, 1
    )
    cdef Py_ssize_t samples = patches.samples_of_unit
    cdef Py_ssize_t taps = images.c * patches.kernel_h * patches.kernel_w
    cdef Py_ssize_t kernel_h = rows.reach, kernel_w = columns.reach
    cdef Py_ssize_t unit, skip
    cdef int status = 0
    cdef KernelGradient gradient
    cdef Array4 first = view(
        images, samples, rows.top, columns.left, rows.height, columns.width,
        patches.stride_h, patches.stride_w, transposed
    )
    cdef Array4 second = view(
        images, samples, rows.top, columns.left - columns.shift * patches.dilation_w,
        (rows.height - 1) * patches.stride_h + (rows.reach - 1) * patches.dilation_h + 1,
        (columns.width - 1) * patches.stride_w + (columns.reach - 1) * patches.dilation_w + 1,
        1, 1, transposed
    )
    cdef double *sums = <double *> aligned_alloc(
        images.c * images.c * rows.reach * columns.reach, sizeof(double)
    )
    if sums == NULL:
        return -1
    if transposed:
        kernel_h, kernel_w = kernel_w, kernel_h
        geometry.stride_h, geometry.stride_w = geometry.stride_w, geometry.stride_h
        geometry.dilation_h, geometry.dilation_w = geometry.dilation_w, geometry.dilation_h
    if init_kernel_gradient(
        &gradient, &second, &first, samples, kernel_h, kernel_w, &geometry, num_threads,
        sizeof(double)
    ) == -1:
        aligned_free(sums)
        return -1
    for unit in range(units.first, units.end):
        if status == -1 or stopped(interrupt):
            break
        skip = unit * samples * images.n_stride
        # The last unit may be smaller; nothing behind its pixels may be read.
        gradient.images.n = min(samples, images.n - unit * samples)
        status = run_kernel_gradient(
            &gradient, <const double *> second.data + skip, NULL, gradient.images.n,
            <const double *> first.data + skip, sums, interrupt
        )
        spread(
            patches, rows, columns, sums, transposed, patches.products + unit * taps * taps
        )
    free_kernel_gradient(&gradient)
    aligned_free(sums)
    return status


cdef inline Py_ssize_t num_bands(const Patches *patches) noexcept nogil:
    """Bands of rows that all pixels of a band are met by the same rows of taps."""
    return 2 * patches.kernel_h - 1 if patches.by_displacement else patches.kernel_h


cdef Rows rows_of(const Patches *patches, Py_ssize_t band) noexcept nogil:
    """The core, then the bands above it, from the top, then those below."""
    cdef Py_ssize_t dilation = patches.dilation_h
    cdef Py_ssize_t last = patches.kernel_h - 1
    if not patches.by_displacement:
        return Rows(band * dilation, patches.out_h, band, band + 1, patches.kernel_h - band)
    if band == 0:
        return Rows(
            last * dilation, patches.out_h - last * dilation, 0, patches.kernel_h,
            patches.kernel_h
        )
    if band <= last:
        return Rows((band - 1) * dilation, dilation, 0, band, patches.kernel_h)
    band -= last
    return Rows(
        patches.out_h + (band - 1) * dilation, dilation, band, patches.kernel_h,
        patches.kernel_h - band
    )


cdef int add_core(
    const Patches *patches, Units units, int num_threads, Interrupt *interrupt
) noexcept nogil:
    """Add the columns that all windows share, for each band of rows and each displacement."""
    cdef Py_ssize_t last = patches.kernel_w - 1
    cdef Py_ssize_t left = last * patches.dilation_w
    cdef Columns columns = Columns(
        left, patches.out_w - left, 0, patches.kernel_w, last, 2 * last + 1
    )
    cdef Rows rows
    cdef Py_ssize_t band
    if not patches.by_displacement:
        return 0
    for band in range(num_bands(patches)):
        rows = rows_of(patches, band)
        if add_rectangle(
            patches, &rows, &columns, units, False, num_threads, interrupt
        ) == -1:
            return -1
    return 0


cdef int add_column(
    const Patches *patches, Py_ssize_t j, Units units, Interrupt *interrupt
) noexcept nogil:
    """Add the other pixels that the taps in column j meet. No other column writes where it does."""
    cdef Columns whole = Columns(
        j * patches.dilation_w, patches.out_w, j, j + 1, j, patches.kernel_w
    )
    cdef Columns[2] sides = [whole, whole]
    cdef Py_ssize_t band, side, num_sides = 1
    cdef Rows rows
    if patches.by_displacement:
        num_sides = 2
        sides[0].width = (patches.kernel_w - 1 - j) * patches.dilation_w
        sides[1].left = patches.out_w
        sides[1].width = j * patches.dilation_w
    for band in range(num_bands(patches)):
        rows = rows_of(patches, band)
        for side in range(num_sides):
            # Along narrow rectangles, the sums run down the columns.
            if sides[side].width > 0 and add_rectangle(
                patches, &rows, &sides[side], units, sides[side].width < rows.height, 1, interrupt
            ) == -1:
                return -1
    return 0


cdef void mirror(const Patches *patches, Py_ssize_t unit) noexcept nogil:
    """Copy the entries of rows i' >= i to those with t and u exchanged."""
    cdef Py_ssize_t kw = patches.kernel_w
    cdef Py_ssize_t plane = patches.kernel_h * kw
    cdef Py_ssize_t taps = patches.images.c * plane
    cdef double *products = patches.products + unit * taps * taps
    cdef Py_ssize_t t, u
    for t in range(taps):
        for u in range(t + 1, taps):
            if u % plane // kw >= t % plane // kw:
                products[u * taps + t] = products[t * taps + u]
            else:
                products[t * taps + u] = products[u * taps + t]


cdef double products_of_unit(const Patches *patches, bint by_displacement) noexcept nogil:
    """About how many products, or what takes as long, a unit takes."""
    cdef double kh = patches.kernel_h, kw = patches.kernel_w
    cdef double out_h = patches.out_h, out_w = patches.out_w
    cdef double scale = <double> patches.samples_of_unit * patches.images.c * patches.images.c
    if not by_displacement:
        return scale * kh * (kh + 1) / 2 * kw * kw * out_h * out_w + (
            PRODUCTS_PER_RECTANGLE * kh * kw
        )
    return scale * kh * (out_h + kh * patches.dilation_h) * (
        (2 * kw - 1) * out_w + kw * kw * kw * patches.dilation_w
    ) + PRODUCTS_PER_RECTANGLE * 2 * kh * 2 * kw


cdef bint worth_going_by_displacement(const Patches *patches) noexcept nogil:
    return (
        patches.stride_h == 1 and patches.stride_w == 1
        and patches.out_h >= extent_of(patches.kernel_h, patches.dilation_h)
        and patches.out_w >= extent_of(patches.kernel_w, patches.dilation_w)
        and products_of_unit(patches, True) < products_of_unit(patches, False)
    )


# What the tasks read; where they write is in the patches.
cdef struct Operands:
    const Patches *patches
    Py_ssize_t tasks
    int *status         # -1 when memory runs out


cdef void sum_column(
    const void *work, Py_ssize_t j, void *scratch, Interrupt *interrupt
) noexcept nogil:
    cdef const Operands *operands = <const Operands *> work
    if add_column(operands.patches, j, Units(0, 1), interrupt) == -1:
        operands.status[0] = -1


cdef void sum_units(
    const void *work, Py_ssize_t task, void *scratch, Interrupt *interrupt
) noexcept nogil:
    cdef const Operands *operands = <const Operands *> work
    cdef const Patches *patches = operands.patches
    cdef Units units = Units(
        task * patches.num_units // operands.tasks, (task + 1) * patches.num_units // operands.tasks
    )
    cdef int status = add_core(patches, units, 1, interrupt)
    cdef Py_ssize_t j, unit
    for j in range(patches.kernel_w):
        if status == 0:
            status = add_column(patches, j, units, interrupt)
    for unit in range(units.first, units.end):
        mirror(patches, unit)
    if status == -1:
        operands.status[0] = -1


cdef int sum_patches(const void *work, Interrupt *interrupt) noexcept nogil:
    """Sum up a single unit, whose columns are tasks, and so are the pixels of its core; or many."""
    cdef const Patches *patches = <const Patches *> work
    cdef bint single = patches.num_units == 1
    cdef int status = 0
    cdef Operands operands = Operands(
        patches, patches.kernel_w if single else min(patches.num_units, 4 * ENOUGH_TASKS), &status
    )
    cdef Tasks tasks = tasks_of(
        &operands, sizeof(double), NULL, sum_column if single else sum_units, operands.tasks, 0,
        threads_for(
            patches.num_units * products_of_unit(patches, patches.by_displacement),
            operands.tasks, patches.num_threads
        )
    )
    if single:
        status = add_core(patches, Units(0, 1), patches.num_threads, interrupt)
    if status == 0:
        run_tasks(&tasks, interrupt)
    if single:
        mirror(patches, 0)
    return status


def patch_products(
    cnp.ndarray images, tuple kernel_size, tuple stride, tuple dilation, tuple output_shape,
    Py_ssize_t samples_of_unit, cnp.ndarray products, int num_threads
):
    """Add G of each `samples_of_unit` samples, the last of which may be fewer, to `products`.

    `images` are float64, (N, C, H, W), aligned; the sizes fit. `products` are (units, taps, taps)
    for C * kh * kw taps, float64, C-contiguous and symmetric.
    """
    cdef Patches patches
    patches.images = describe(images)
    patches.kernel_h, patches.kernel_w = kernel_size
    patches.stride_h, patches.stride_w = stride
    patches.dilation_h, patches.dilation_w = dilation
    patches.out_h, patches.out_w = output_shape
    patches.samples_of_unit = min(samples_of_unit, patches.images.n)
    patches.num_units = cnp.PyArray_DIM(products, 0)
    patches.num_threads = num_threads
    patches.products = <double *> cnp.PyArray_DATA(products)
    patches.by_displacement = worth_going_by_displacement(&patches)
    perform("the sums over patches", sum_patches, &patches)
