"""The gradient with respect to the kernels: sums over pixels of output gradients times pixels.

The output gradients of a tile are laid out like its pixels, with zeros where the tile's rows end.
Then each entry of the gradient is one dot product of a row of output gradients with the pixels
from its tap's offset on, and the micro-kernel computes a few rows times a few taps at once. The
sums of the tiles are added in float64, in an order that depends on the shapes alone.
"""

cimport numpy as cnp
from cython.parallel cimport parallel, prange, threadid
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from convext._dispatch cimport Microkernels, microkernels
from convext._geometry cimport Array4, Geometry, describe, geometry_of, real
from convext._interrupt cimport Interrupt, finish_polling, interrupted, start_polling
from convext._scratch cimport aligned_alloc, aligned_size
from convext._tasks cimport ENOUGH_TASKS, MIN_PRODUCTS_PER_THREAD, divide_up, threads_for
from convext._tile cimport (
    Axis, Tile, Tiling, free_tiling, init_axis, init_tiling, lay_out, packed_size, row_size, tile_at
)

# A few rows of output gradients should stay in L1 beside the pixels, those of a chunk of kernels
# in L2.
cdef Py_ssize_t MAX_ROW_BYTES = 8 * 1024
cdef Py_ssize_t MAX_CHUNK_BYTES = 192 * 1024

# The partial gradients of all segments together.
cdef Py_ssize_t MAX_SUM_BYTES = 32 * 1024 * 1024


cdef int init_kernel_gradient(
    KernelGradient *gradient, const Array4 *images, const Array4 *output_grad,
    Py_ssize_t num_samples, Py_ssize_t kernel_h, Py_ssize_t kernel_w, const Geometry *geometry,
    int num_threads, size_t itemsize
) noexcept nogil:
    cdef const Microkernels *micro = microkernels(itemsize)
    cdef Tiling *tiling = &gradient.tiling
    cdef Axis rows, columns
    cdef Py_ssize_t tiles, parts, kernels_at_once
    cdef double products
    if init_axis(&rows, kernel_h, geometry.stride_h, geometry.padding_top,
                 geometry.dilation_h) == -1:
        return -1
    if init_axis(&columns, kernel_w, geometry.stride_w, geometry.padding_left,
                 geometry.dilation_w) == -1:
        free(rows.distance)
        return -1
    gradient.micro = micro
    gradient.itemsize = itemsize
    gradient.images = images[0]
    gradient.output_grad = output_grad[0]
    gradient.groups = geometry.groups
    gradient.channels = images.c // geometry.groups
    gradient.kernels = output_grad.c // geometry.groups
    gradient.size = output_grad.c * gradient.channels * kernel_h * kernel_w
    if init_tiling(
        tiling, rows, columns, images, gradient.channels, output_grad.h, output_grad.w,
        MAX_ROW_BYTES // <Py_ssize_t> itemsize, gradient.channels, itemsize
    ) == -1:
        return -1
    gradient.row_size = row_size(tiling, micro.lanes)

    kernels_at_once = max(1, MAX_CHUNK_BYTES // (gradient.row_size * <Py_ssize_t> itemsize))
    gradient.kernel_chunks = divide_up(gradient.kernels, kernels_at_once)
    gradient.channel_chunks = divide_up(gradient.channels, tiling.block)
    parts = gradient.groups * gradient.kernel_chunks * gradient.channel_chunks
    tiles = num_samples * tiling.tiles_down * tiling.tiles_across
    products = <double> num_samples * gradient.size * output_grad.h * output_grad.w
    gradient.segments = 1
    if products > MIN_PRODUCTS_PER_THREAD:
        gradient.segments = max(1, min(
            min(tiles, divide_up(ENOUGH_TASKS, parts)),
            MAX_SUM_BYTES // (gradient.size * <Py_ssize_t> sizeof(double))
        ))
    gradient.num_threads = threads_for(products, parts * gradient.segments, num_threads)

    gradient.scratch_size = aligned_size(
        packed_size(tiling, micro.lanes)
        + (divide_up(gradient.kernels, gradient.kernel_chunks) + 1) * gradient.row_size,
        itemsize
    )
    gradient.scratch = aligned_alloc(gradient.scratch_size * gradient.num_threads, itemsize)
    gradient.sums = <double *> aligned_alloc(gradient.segments * gradient.size, sizeof(double))
    if gradient.scratch == NULL or gradient.sums == NULL:
        free_kernel_gradient(gradient)
        return -1
    return 0


cdef void free_kernel_gradient(KernelGradient *gradient) noexcept nogil:
    free_tiling(&gradient.tiling)
    free(gradient.scratch)
    free(gradient.sums)


cdef void lay_out_gradients(
    const KernelGradient *gradient, const Tile *tile, const real *source, real *to
) noexcept nogil:
    """Copy the output gradients of one kernel under a tile, with zeros between its rows."""
    cdef const Array4 *layout = &gradient.output_grad
    cdef Py_ssize_t c
    cdef Py_ssize_t pitch = gradient.tiling.pitch
    cdef real *end = to + gradient.row_size
    source += tile.top * layout.h_stride + tile.left * layout.w_stride
    for _ in range(tile.height):
        for c in range(tile.width):
            to[c] = source[c * layout.w_stride]
        memset(to + tile.width, 0, (pitch - tile.width) * sizeof(real))
        source += layout.h_stride
        to += pitch
    memset(to, 0, (end - to) * sizeof(real))


cdef real dot_without_gaps(
    const KernelGradient *gradient, const Tile *tile, const real *row, const real *pixels,
    real *spare
) noexcept nogil:
    """Multiply only what belongs together.

    Between the rows of a tile the micro-kernel multiplies zeros with pixels that do not belong
    there, which changes nothing unless such a pixel is infinite or NaN. Here they are zeros too, so
    the sum has the same bits as if they had been finite.
    """
    cdef Py_ssize_t pitch = gradient.tiling.pitch
    cdef Py_ssize_t r, nowhere = 0
    cdef real total
    memset(spare, 0, gradient.row_size * sizeof(real))
    for r in range(tile.height):
        memcpy(spare + r * pitch, pixels + r * pitch, tile.width * sizeof(real))
    gradient.micro.dot[1][1](tile.num_pixels, row, 0, spare, &nowhere, &total)
    return total


cdef void add_tile(
    const KernelGradient *gradient, const Tile *tile, Py_ssize_t kernels, Py_ssize_t taps,
    const real *rows, const real *pixels, const Py_ssize_t *offset, real *spare, double *sums
) noexcept nogil:
    cdef const Microkernels *micro = gradient.micro
    cdef Py_ssize_t kernel_size = gradient.channels * gradient.tiling.taps
    cdef Py_ssize_t k, t, i, j, row_count, tap_count, tap_blocks, b
    cdef real[32] block
    cdef real value
    k = 0
    while k < kernels:
        row_count = min(<Py_ssize_t> micro.max_rows, kernels - k)
        tap_blocks = divide_up(taps, micro.max_dot_taps[row_count])
        for b in range(tap_blocks):
            t = b * taps // tap_blocks
            tap_count = (b + 1) * taps // tap_blocks - t
            micro.dot[row_count][tap_count](
                tile.num_pixels, rows + k * gradient.row_size, gradient.row_size, pixels,
                offset + t, block
            )
            for i in range(row_count):
                for j in range(tap_count):
                    value = block[i * tap_count + j]
                    if value - value != 0:
                        value = dot_without_gaps(
                            gradient, tile, rows + (k + i) * gradient.row_size,
                            pixels + offset[t + j], spare
                        )
                    sums[(k + i) * kernel_size + t + j] += value
        k += row_count


cdef void run_part(
    const KernelGradient *gradient, const real *images, const Py_ssize_t *order,
    Py_ssize_t num_samples, const real *output_grad, Py_ssize_t task, real *scratch,
    Interrupt *interrupt, bint may_poll
) noexcept nogil:
    """Sum one part of the gradient (kernels x channels of a group) over one segment of tiles."""
    cdef const Tiling *tiling = &gradient.tiling
    cdef int lanes = gradient.micro.lanes
    cdef Py_ssize_t segment = task % gradient.segments
    cdef Py_ssize_t channel_chunk = task // gradient.segments % gradient.channel_chunks
    cdef Py_ssize_t part = task // gradient.segments // gradient.channel_chunks
    cdef Py_ssize_t kernel_chunk = part % gradient.kernel_chunks
    cdef Py_ssize_t group = part // gradient.kernel_chunks
    cdef Py_ssize_t kernel = kernel_chunk * gradient.kernels // gradient.kernel_chunks
    cdef Py_ssize_t kernels = (
        (kernel_chunk + 1) * gradient.kernels // gradient.kernel_chunks - kernel
    )
    cdef Py_ssize_t channel = channel_chunk * tiling.block
    cdef Py_ssize_t channels = min(tiling.block, gradient.channels - channel)
    cdef Py_ssize_t kernel_size = gradient.channels * tiling.taps
    cdef Py_ssize_t tiles = tiling.tiles_down * tiling.tiles_across
    cdef double *sums = gradient.sums + segment * gradient.size + (
        (group * gradient.kernels + kernel) * kernel_size + channel * tiling.taps
    )
    cdef real *rows = scratch + packed_size(tiling, lanes)
    cdef real *spare = rows + kernels * gradient.row_size
    cdef Array4 source = gradient.images
    cdef Tile tile
    cdef const Py_ssize_t *offset
    cdef const real *pixels
    cdef Py_ssize_t i, n, k
    source.data = <void *> images
    for k in range(kernels):
        memset(sums + k * kernel_size, 0, channels * tiling.taps * sizeof(double))

    for i in range(
        segment * num_samples * tiles // gradient.segments,
        (segment + 1) * num_samples * tiles // gradient.segments
    ):
        if interrupted(interrupt, may_poll):
            break
        n = i // tiles
        tile = tile_at(tiling, i % tiles, lanes)
        pixels = lay_out(
            tiling, &tile, &source, order[n] if order != NULL else n,
            group * gradient.channels + channel, channels, scratch, lanes, &offset
        )
        for k in range(kernels):
            lay_out_gradients(
                gradient, &tile,
                output_grad + n * gradient.output_grad.n_stride
                + (group * gradient.kernels + kernel + k) * gradient.output_grad.c_stride,
                rows + k * gradient.row_size
            )
        add_tile(
            gradient, &tile, kernels, channels * tiling.taps, rows, pixels, offset, spare, sums
        )


cdef void run_kernel_gradient(
    KernelGradient *gradient, const real *images, const Py_ssize_t *order,
    Py_ssize_t num_samples, const real *output_grad, Interrupt *interrupt
) noexcept nogil:
    cdef Py_ssize_t tasks = (
        gradient.groups * gradient.kernel_chunks * gradient.channel_chunks * gradient.segments
    )
    cdef Py_ssize_t task, segment, i
    with parallel(num_threads=gradient.num_threads, use_threads_if=gradient.num_threads > 1):
        for task in prange(tasks, schedule="dynamic"):
            run_part(
                gradient, images, order, num_samples, output_grad, task,
                <real *> gradient.scratch + threadid() * gradient.scratch_size,
                interrupt, threadid() == 0
            )
    for segment in range(1, gradient.segments):
        for i in range(gradient.size):
            gradient.sums[i] += gradient.sums[segment * gradient.size + i]


cdef int differentiate(
    const Array4 *images, const Array4 *output_grad, const Geometry *geometry,
    Py_ssize_t kernel_h, Py_ssize_t kernel_w, real *kernel_grad, int num_threads,
    Interrupt *interrupt
) noexcept nogil:
    cdef KernelGradient gradient
    cdef Py_ssize_t i
    if init_kernel_gradient(
        &gradient, images, output_grad, images.n, kernel_h, kernel_w, geometry, num_threads,
        sizeof(real)
    ) == -1:
        return -1
    run_kernel_gradient(
        &gradient, <const real *> images.data, NULL, images.n, <const real *> output_grad.data,
        interrupt
    )
    for i in range(gradient.size):
        kernel_grad[i] = <real> gradient.sums[i]
    free_kernel_gradient(&gradient)
    return 0


def conv2d_kernel_grad(
    cnp.ndarray input_data, cnp.ndarray output_grad, cnp.ndarray kernel_grad,
    tuple stride, tuple padding_before, tuple dilation, Py_ssize_t groups, int num_threads
):
    """Write the gradient with respect to the kernels to `kernel_grad`, which is C-contiguous.

    All arrays are four-dimensional, of one type, aligned; the sizes fit.
    """
    cdef Array4 images = describe(input_data)
    cdef Array4 gradients = describe(output_grad)
    cdef Array4 result = describe(kernel_grad)
    cdef Geometry geometry = geometry_of(stride, padding_before, dilation, groups)
    cdef bint single = cnp.PyArray_ITEMSIZE(kernel_grad) == sizeof(float)
    cdef Interrupt interrupt
    cdef int status
    with nogil:
        start_polling(&interrupt)
        if single:
            status = differentiate[float](
                &images, &gradients, &geometry, result.h, result.w, <float *> result.data,
                num_threads, &interrupt
            )
        else:
            status = differentiate[double](
                &images, &gradients, &geometry, result.h, result.w, <double *> result.data,
                num_threads, &interrupt
            )
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError("not enough memory for the gradient's scratch space")
