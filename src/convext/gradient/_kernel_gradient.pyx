"""The gradient with respect to the kernels: sums over pixels of output gradients times pixels.

The gradient is computed in parts (some kernels, some channels), each over segments of the tiles of
all samples, by dot products or by the building block of the forward convolution, whichever is
faster for the shape. The sums are added in float64, in an order that depends on the shapes
alone.
"""

from libc.stdlib cimport free
from libc.string cimport memset

from convext.base._dispatch cimport microkernels
from convext.base._geometry cimport Array4, Convolution, Geometry, real
from convext.gradient._gradient_by_dots cimport add_tile_by_dots, arrange_dots
from convext.gradient._gradient_by_vectors cimport (
    add_tile_by_vectors, flush_sums, store_sums, vectors_scratch_size
)
from convext.base._interrupt cimport Interrupt, check_memory, perform, stopped
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size
from convext.gradient._gradient_plan cimport (
    MAX_RUNNING_PIXELS, KernelGradient, Part, plan_kernel_gradient
)
from convext.gradient._segments cimport add_segments
from convext.base._tasks cimport Task, Tasks, divide_up, run_tasks, tasks_of
from convext.ways._tile cimport Tile, Tiling, axis_across, axis_down, free_tiling, tile_at
from convext.ways._ways cimport Needs, Way, direct_products, time_of_results


cdef int allocate(KernelGradient *gradient) noexcept nogil:
    cdef Py_ssize_t kernels = divide_up(gradient.kernels, gradient.kernel_chunks)
    gradient.scratch_size = aligned_size(
        vectors_scratch_size(gradient, kernels) if gradient.by_kernels or gradient.by_channels
        else arrange_dots(gradient, kernels).end,
        gradient.itemsize
    )
    if gradient.in_one_go:
        return 0
    gradient.sums = <double *> aligned_alloc(gradient.segments * gradient.size, sizeof(double))
    return -1 if gradient.sums == NULL else 0


cdef int init_kernel_gradient(
    KernelGradient *gradient, const Array4 *images, const Array4 *output_grad,
    Py_ssize_t num_samples, Py_ssize_t kernel_h, Py_ssize_t kernel_w, const Geometry *geometry,
    int num_threads, size_t itemsize
) noexcept nogil:
    gradient.micro = microkernels(itemsize)
    gradient.itemsize = itemsize
    gradient.images = images[0]
    gradient.output_grad = output_grad[0]
    gradient.groups = geometry.groups
    gradient.channels = images.c // geometry.groups
    gradient.kernels = output_grad.c // geometry.groups
    gradient.size = output_grad.c * gradient.channels * kernel_h * kernel_w
    gradient.tiling.rows = axis_down(kernel_h, geometry)
    gradient.tiling.columns = axis_across(kernel_w, geometry)
    gradient.unfolding.place = NULL
    gradient.sums = NULL
    if plan_kernel_gradient(gradient, num_samples, num_threads) == -1 or allocate(gradient) == -1:
        free_kernel_gradient(gradient)
        return -1
    return 0


cdef void free_kernel_gradient(KernelGradient *gradient) noexcept nogil:
    free_tiling(&gradient.tiling)
    free(gradient.unfolding.place)
    aligned_free(gradient.sums)


cdef Part part_of(
    const KernelGradient *gradient, Py_ssize_t index, Py_ssize_t segment
) noexcept nogil:
    """The kernels and channels of a part, and where its sums are."""
    cdef Part part
    cdef Py_ssize_t channel_chunk = index % gradient.channel_chunks
    cdef Py_ssize_t kernel_chunk = index // gradient.channel_chunks % gradient.kernel_chunks
    cdef Py_ssize_t group = index // gradient.channel_chunks // gradient.kernel_chunks
    cdef Py_ssize_t first = kernel_chunk * gradient.kernels // gradient.kernel_chunks
    cdef Py_ssize_t end = (kernel_chunk + 1) * gradient.kernels // gradient.kernel_chunks
    cdef Py_ssize_t channel = channel_chunk * gradient.tiling.block
    part.kernel = group * gradient.kernels + first
    part.kernels = end - first
    part.channel = group * gradient.channels + channel
    part.channels = min(gradient.tiling.block, gradient.channels - channel)
    part.first = (part.kernel * gradient.channels + channel) * gradient.tiling.taps
    part.sums = gradient.sums + segment * gradient.size + part.first
    return part


cdef inline Py_ssize_t first_tile(
    const KernelGradient *gradient, Py_ssize_t segment, Py_ssize_t tiles
) noexcept nogil:
    return segment * tiles // gradient.segments


# What the tasks read, and where they write.
cdef struct Operands:
    const KernelGradient *gradient
    const void *images
    const Py_ssize_t *order
    Py_ssize_t num_samples
    const void *output_grad
    void *kernel_grad


cdef void sum_part(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Sum one part of the gradient over one segment of the tiles."""
    cdef const Operands *operands = <const Operands *> work
    cdef const KernelGradient *gradient = operands.gradient
    cdef const Tiling *tiling = &gradient.tiling
    cdef const Array4 *layout = &gradient.output_grad
    cdef bint by_dots = not (gradient.by_kernels or gradient.by_channels)
    cdef real *kernel_grad = <real *> operands.kernel_grad
    cdef Py_ssize_t segment = task % gradient.segments
    cdef Part part = part_of(gradient, task // gradient.segments, segment)
    cdef Py_ssize_t tiles = tiling.tiles_down * tiling.tiles_across
    cdef Py_ssize_t begin = first_tile(gradient, segment, operands.num_samples * tiles)
    cdef Py_ssize_t end = first_tile(gradient, segment + 1, operands.num_samples * tiles)
    cdef Array4 source = gradient.images
    cdef Tile tile
    cdef Py_ssize_t i, n, k, image, running = 0
    cdef bint fresh = True
    cdef const real *first_grad
    source.data = <void *> operands.images
    # Fewer samples than were prepared for may have fewer tiles than segments.
    if begin == end or by_dots:
        for k in range(part.kernels):
            memset(
                part.sums + k * gradient.channels * tiling.taps, 0,
                part.channels * tiling.taps * sizeof(double)
            )

    for i in range(begin, end):
        if i > begin and stopped(interrupt):
            return
        n = i // tiles
        image = operands.order[n] if operands.order != NULL else n
        tile = tile_at(tiling, i % tiles, gradient.micro.lanes)
        if gradient.unfolded:
            # Each window is read in whole vectors.
            tile.num_pixels += gradient.micro.lanes
        first_grad = <const real *> operands.output_grad + (
            n * layout.n_stride + part.kernel * layout.c_stride
            + tile.top * layout.h_stride + tile.left * layout.w_stride
        )
        if by_dots:
            add_tile_by_dots(gradient, &part, &tile, &source, image, first_grad, scratch)
            continue
        add_tile_by_vectors(
            gradient, &part, &tile, &source, image, first_grad, running == 0, scratch, kernel_grad
        )
        running += tile.height * tile.width
        if gradient.in_one_go and i == end - 1:
            store_sums(gradient, &part, scratch, kernel_grad)
        elif running >= MAX_RUNNING_PIXELS or i == end - 1:
            flush_sums(gradient, &part, fresh, scratch)
            fresh = False
            running = 0


cdef int run_kernel_gradient(
    const KernelGradient *gradient, const void *images, const Py_ssize_t *order,
    Py_ssize_t num_samples, const void *output_grad, void *kernel_grad, Interrupt *interrupt
) noexcept nogil:
    cdef Operands operands = Operands(
        gradient, images, order, num_samples, output_grad, kernel_grad
    )
    cdef Tasks parts = tasks_of(
        &operands, gradient.itemsize, <Task> sum_part[float], <Task> sum_part[double],
        gradient.tasks, gradient.scratch_size * <Py_ssize_t> gradient.itemsize,
        gradient.num_threads
    )
    if num_samples == 0:
        memset(kernel_grad, 0, gradient.size * gradient.itemsize)
        return 0
    if run_tasks(&parts, interrupt) == -1:
        return -1
    if gradient.in_one_go:
        return 0
    return add_segments(
        gradient.sums, gradient.segments, gradient.size, kernel_grad, gradient.itemsize,
        gradient.num_threads, interrupt
    )


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    return NULL


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    return direct_products(convolution) + time_of_results(convolution)


cdef int init_whole(KernelGradient *gradient, const Convolution *convolution) noexcept nogil:
    """Prepare for all samples at a time."""
    return init_kernel_gradient(
        gradient, &convolution.images, &convolution.outputs, convolution.images.n,
        convolution.kernels.h, convolution.kernels.w, &convolution.geometry,
        convolution.num_threads, convolution.itemsize
    )


cdef int differentiate_directly(const void *described, Interrupt *interrupt) noexcept nogil:
    """Compute the gradient of a Convolution."""
    cdef const Convolution *convolution = <const Convolution *> described
    cdef KernelGradient gradient
    cdef int status
    if init_whole(&gradient, convolution) == -1:
        return -1
    status = run_kernel_gradient(
        &gradient, convolution.images.data, NULL, convolution.images.n, convolution.outputs.data,
        convolution.kernels.data, interrupt
    )
    free_kernel_gradient(&gradient)
    return status


cdef bint run(const Convolution *convolution, void *plan, dict kept) except -1:
    perform("a kernel gradient", differentiate_directly, convolution)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef KernelGradient gradient
    check_memory(init_whole(&gradient, convolution), "a kernel gradient")
    needs.num_threads = gradient.num_threads
    needs.of_thread = gradient.scratch_size * <Py_ssize_t> convolution.itemsize
    needs.shared = 0
    if gradient.sums != NULL:
        needs.shared = gradient.segments * gradient.size * <Py_ssize_t> sizeof(double)
    free_kernel_gradient(&gradient)
    return True


cdef Way direct_gradient_way() noexcept:
    return Way("direct", objection, time, NULL, NULL, run, NULL, measure)
