"""Training by gradient descent: an epoch in compiled code, without Python between the samples."""

cimport numpy as cnp
import numpy as np
from cpython.exc cimport PyErr_SetObject
from libc.math cimport isfinite
from libc.string cimport memset

from convext.ways._correlation cimport free_correlation, init_correlation, run_correlation
from convext.ways._correlation_plan cimport Chunk, Correlation, all_weights, chunk_of
from convext.ways._weights cimport pack_weights
from convext.base._arrays cimport describe
from convext.base._geometry cimport (
    Array4, Geometry, Weights, contiguous, geometry_of, real, weights_of
)
from convext.gradient._gradient_by_dots cimport DotsScratch, add_dots, arrange_dots
from convext.base._interrupt cimport (
    Interrupt, Operation, check_memory, perform, stopped
)
from convext.gradient._gradient_plan cimport KernelGradient
from convext.gradient._kernel_gradient cimport (
    free_kernel_gradient, init_kernel_gradient, run_kernel_gradient
)
from convext.train._layers cimport check_activation
from convext.train._optimizers cimport Update
from convext.train._quadratic cimport Quadratic
from convext.train._residuals cimport Residuals, subtract_targets
from convext.base._scratch cimport aligned_array, data_of
from convext.base._tasks cimport MIN_PRODUCTS_TO_SHARE, stopped_after
from convext.ways._tile cimport Tile, Tiling, axis_across, axis_down, lay_out, tile_at
from convext.ways._vectors_of_pixels cimport Runs, one_run, sum_vectors_of_pixels

# Bytes of predictions that are kept at a time; a larger batch is taken in several parts.
MAX_PREDICTION_BYTES = 16 * 1024 * 1024


cdef inline bint one_tile(const Tiling *tiling, Py_ssize_t channels) noexcept nogil:
    """Whether a sample is a single tile, with all channels laid out together."""
    return tiling.tiles_down == 1 and tiling.tiles_across == 1 and tiling.block == channels


cdef int init_both(
    Correlation *forward, KernelGradient *gradient, const Array4 *images, const Array4 *targets,
    const Array4 *weights, Py_ssize_t samples, const Geometry *geometry, int num_threads,
    size_t itemsize
) noexcept nogil:
    """Plan what a training computes: the convolution, and the gradient of its kernels."""
    cdef Weights of_forward = weights_of(weights, geometry.groups, False)
    if init_correlation(
        forward, images, samples, axis_down(weights.h, geometry), axis_across(weights.w, geometry),
        geometry.groups, &of_forward, targets.h, targets.w, num_threads, itemsize
    ) == -1:
        return -1
    if init_kernel_gradient(
        gradient, images, targets, samples, weights.h, weights.w, geometry, num_threads, itemsize
    ) == -1:
        free_correlation(forward)
        return -1
    return 0


cdef bint in_one_go(
    const Correlation *forward, const KernelGradient *gradient, Py_ssize_t samples
) noexcept nogil:
    """Whether each sample is taken in one go, by one thread.

    This must not depend on the number of threads: the order of the sums differs.
    """
    cdef Py_ssize_t plane = gradient.output_grad.h * gradient.output_grad.w
    return (
        <double> gradient.size * plane * samples < MIN_PRODUCTS_TO_SHARE
        and forward.num_chunks == 1
        and not forward.by_kernels and not gradient.by_channels
        and gradient.kernel_chunks == 1 and gradient.channel_chunks == 1
        and one_tile(&forward.tiling, gradient.channels)
        and one_tile(&gradient.tiling, gradient.channels)
    )


def fuses(
    tuple input_shape, tuple target_shape, tuple kernel_shape, Py_ssize_t batch_size, geometry,
    size_t itemsize
):
    """Whether a Trainer for arrays of these shapes would be fused, without arrays to make it of."""
    cdef Array4 images = contiguous(input_shape), targets = contiguous(target_shape)
    cdef Array4 weights = contiguous(kernel_shape)
    cdef Geometry windows = geometry_of(geometry)
    cdef Py_ssize_t samples = min(batch_size, images.n)
    cdef Correlation forward
    cdef KernelGradient gradient
    cdef bint fused
    check_memory(
        init_both(
            &forward, &gradient, &images, &targets, &weights, samples, &windows, 1, itemsize
        ),
        "training"
    )
    fused = in_one_go(&forward, &gradient, samples)
    free_correlation(&forward)
    free_kernel_gradient(&gradient)
    return fused


cdef class Trainer:
    """Gradient descent on the mean squared error between conv2d(input, kernels) and target.

    The arrays are four-dimensional, C-contiguous, of one type, aligned; the sizes fit. `kernels`
    is updated in place, by `update`. What lies between steps is kept: packed kernels, predictions.

    Where input and target are not arrays, but have shapes, `reader` must be set before an epoch. It
    is told the order by `begin(order)`, and returns the block of any place in it: where in the
    order the block begins, and the arrays of its samples.

    A `fused` trainer can also predict activation(conv2d(input, kernels) + bias); the bias, where
    there is one, lies behind the kernels in memory.
    """

    cdef cnp.ndarray kernels
    cdef readonly object input_data, target_output
    cdef public object reader       # or None
    cdef object block               # what it gave last,
    cdef cnp.ndarray ascending      # with the places of its samples, 0, 1, ...,
    cdef Py_ssize_t begin, end      # which are those from `begin` to `end` in the order
    cdef Array4 images, targets, weights
    cdef Py_ssize_t batch_size
    cdef readonly Py_ssize_t part   # samples taken together
    cdef Py_ssize_t plane           # elements of one channel of a prediction
    cdef int num_threads
    cdef size_t itemsize
    cdef bint ready                 # whether `forward` and `gradient` are
    cdef list blocks                # all memory
    cdef const Py_ssize_t *order    # of the epoch's samples,
    cdef Py_ssize_t num_samples     # all that are taken
    cdef readonly Py_ssize_t done   # samples of the epoch that were gone through
    cdef double loss, first_loss    # of the epoch, and of its first batch
    cdef readonly bint fused        # each sample is taken in one go, by one thread
    cdef DotsScratch layout         # of its memory, whichever way the gradient itself would go
    cdef void *scratch              # layout.end elements, or NULL
    cdef Update update
    cdef bint biased
    cdef int activation
    cdef Correlation forward
    cdef KernelGradient gradient
    cdef void *packed               # the kernels, for the forward convolution
    cdef void *predictions          # [part][K][OH][OW], turned into the loss's gradient in place
    cdef double *squares            # [part][K], sums of squared residuals
    cdef void *kernel_grad          # [K][C][kh][kw], the gradient of a part
    cdef double *total              # the same of a batch
    cdef double *half_gradient      # the same of a unit, see Quadratic
    cdef bint by_sample             # whether a unit is a sample, else a batch
    cdef Quadratic quadratic        # or None

    def __cinit__(
        self, input_data, target_output, cnp.ndarray kernels, Py_ssize_t batch_size, geometry,
        int num_threads, Update update not None, bint biased=False, int activation=0
    ):
        cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(kernels)
        cdef Py_ssize_t most = MAX_PREDICTION_BYTES     # a global of Python, which tests replace
        cdef Geometry windows = geometry_of(geometry)
        check_activation(activation)
        self.blocks = []
        self.input_data, self.target_output, self.kernels = input_data, target_output, kernels
        self.images = contiguous(input_data.shape)
        self.targets = contiguous(target_output.shape)
        if isinstance(input_data, cnp.ndarray) and isinstance(target_output, cnp.ndarray):
            self.use(input_data, target_output)
        self.weights = describe(kernels)
        self.batch_size = batch_size
        self.num_threads = num_threads
        self.update, self.biased, self.activation = update, biased, activation
        self.itemsize = itemsize
        self.plane = self.targets.h * self.targets.w
        self.part = max(1, min(
            min(batch_size, self.images.n), most // (self.targets.c * self.plane * itemsize)
        ))
        check_memory(
            init_both(
                &self.forward, &self.gradient, &self.images, &self.targets, &self.weights,
                self.part, &windows, num_threads, itemsize
            ),
            "training"
        )
        self.ready = True
        self.fused = in_one_go(&self.forward, &self.gradient, self.part)
        if self.fused:
            self.layout = arrange_dots(&self.gradient, self.weights.n)
            self.scratch = self.memory(self.layout.end, itemsize)
        self.packed = self.memory(all_weights(&self.forward), itemsize)
        self.forward.packed = self.packed
        self.predictions = self.memory(self.part * self.targets.c * self.plane, itemsize)
        self.squares = <double *> self.memory(self.part * self.targets.c, sizeof(double))
        self.kernel_grad = self.memory(self.gradient.size, itemsize)
        # Behind the gradient, that of the bias.
        self.total = <double *> self.memory(self.gradient.size + self.weights.n, sizeof(double))
        self.half_gradient = <double *> self.memory(self.gradient.size, sizeof(double))

    cdef int use(self, cnp.ndarray images, cnp.ndarray targets) except -1:
        self.images.data = cnp.PyArray_DATA(images)
        self.targets.data = cnp.PyArray_DATA(targets)
        return 0

    cdef int read(self, Py_ssize_t place) except -1:
        """Get the block of a place in the order."""
        self.block = None
        self.begin = self.end = 0
        self.block = self.reader(place)
        first, images, targets = self.block
        self.use(images, targets)
        # How far vectors may reach behind a sample.
        self.images.n = self.forward.source.n = self.gradient.images.n = len(images)
        if self.ascending is None or len(self.ascending) < len(images):
            self.ascending = np.arange(len(images))
        self.begin, self.end = first, first + len(images)
        return 0

    cdef void *memory(self, Py_ssize_t count, size_t itemsize) except NULL:
        """A block that lives as long as the trainer."""
        self.blocks.append(aligned_array(count * itemsize))
        return data_of(self.blocks[len(self.blocks) - 1])

    def __dealloc__(self):
        if self.ready:
            free_correlation(&self.forward)
            free_kernel_gradient(&self.gradient)

    def use_products(self, cnp.ndarray products):
        """Compute losses from sums over the pixels, where that is accurate.

        `products` holds, for each sample or for each batch of the samples in order, the sums over
        all patches of the products of every two pixels (c, i, j) of a patch: (samples or batches,
        C * kh * kw, C * kh * kw), float64 and C-contiguous.
        """
        self.by_sample = len(products) == len(self.input_data)
        self.quadratic = Quadratic(products, self.weights.n)

    @property
    def expansion(self):
        """What losses are expanded from, itself, or None before there are products.

        With these bytes, and the same products, another trainer goes on with the same bits.
        """
        return None if self.quadratic is None else self.quadratic.memory

    def run_epoch(self, cnp.ndarray order, double learning_rate):
        """Take a step for every batch of the samples in `order`, which is of intp and contiguous.

        Returns the mean loss of the predictions made on the way and the loss of the first batch.
        Ends before the update, with a loss that is not finite, where a batch's loss is not.
        """
        self.order = <const Py_ssize_t *> cnp.PyArray_DATA(order)
        self.num_samples = cnp.PyArray_DIM(order, 0)
        self.begin = self.end = 0
        if self.reader is not None:
            self.reader.begin(order)
        self.loss = self.first_loss = 0
        self.done = 0
        self.update.learning_rate = learning_rate
        perform("training", <Operation> take_steps, <const void *> self)
        return self.loss, self.first_loss


cdef int take_steps(Trainer trainer, Interrupt *interrupt) noexcept nogil:
    if trainer.itemsize == sizeof(float):
        return descend(trainer, interrupt, <float *> trainer.weights.data)
    return descend(trainer, interrupt, <double *> trainer.weights.data)


cdef int descend(Trainer trainer, Interrupt *interrupt, real *kernels) noexcept nogil:
    cdef Py_ssize_t first = 0, count, num_samples = trainer.num_samples
    cdef double squares = 0, batch_squares
    cdef double elements = <double> trainer.targets.c * trainer.plane
    while first < num_samples:
        count = min(trainer.batch_size, num_samples - first)
        if differentiate_batch(
            trainer, first, count, &batch_squares, interrupt, kernels
        ) == -1:
            return -1
        if interrupt.raised:
            return 0
        if first == 0:
            trainer.first_loss = batch_squares / (count * elements)
        squares += batch_squares
        if not isfinite(batch_squares):
            break
        trainer.update.apply(kernels, trainer.total)
        first += count
        trainer.done = first
    trainer.loss = squares / (num_samples * elements)
    return 0


cdef int differentiate_batch(
    Trainer trainer, Py_ssize_t first, Py_ssize_t count, double *squares, Interrupt *interrupt,
    real *kernels
) noexcept nogil:
    """Leave the gradient of a batch's loss in trainer.total."""
    cdef const Py_ssize_t *order = trainer.order
    cdef Py_ssize_t i
    cdef double scale = 2 / (<double> count * trainer.targets.c * trainer.plane)
    squares[0] = 0
    memset(trainer.total, 0, (trainer.gradient.size + trainer.weights.n) * sizeof(double))
    if trainer.quadratic is None:
        return differentiate_samples(
            trainer, order + first, count, scale, trainer.total, squares, interrupt, kernels
        )
    if not trainer.by_sample:
        return expand_unit(
            trainer, first // trainer.batch_size, order + first, count, scale, squares, interrupt,
            kernels
        )
    for i in range(first, first + count):
        if stopped(interrupt):
            return 0
        if expand_unit(
            trainer, order[i], order + i, 1, scale, squares, interrupt, kernels
        ) == -1:
            return -1
    return 0


cdef int expand_unit(
    Trainer trainer, Py_ssize_t unit, const Py_ssize_t *samples, Py_ssize_t count, double scale,
    double *squares, Interrupt *interrupt, const real *kernels
) noexcept nogil:
    """Add the gradient of a sample, or batch, to trainer.total, if possible without reading it."""
    cdef double *half = trainer.half_gradient
    cdef double of_unit = trainer.quadratic.expand(unit, kernels, half)
    cdef Py_ssize_t i
    if of_unit != of_unit:
        of_unit = 0
        memset(half, 0, trainer.gradient.size * sizeof(double))
        if differentiate_samples(
            trainer, samples, count, 1, half, &of_unit, interrupt, kernels
        ) == -1:
            return -1
        if interrupt.raised:
            return 0
        trainer.quadratic.expand_from(unit, kernels, half, of_unit)
    for i in range(trainer.gradient.size):
        trainer.total[i] += scale * half[i]
    squares[0] += of_unit
    return 0


cdef int differentiate_samples(
    Trainer trainer, const Py_ssize_t *order, Py_ssize_t count, double scale, double *total,
    double *squares, Interrupt *interrupt, const real *kernels
) noexcept nogil:
    """Add the squared residuals of samples, and their gradient times scale / 2, from the pixels."""
    cdef Py_ssize_t place, end, here
    if trainer.reader is None:
        return differentiate_block(
            trainer, order, count, scale, total, squares, interrupt, kernels
        )
    place = order - trainer.order
    end = place + count
    while place < end and not stopped(interrupt):
        if not trainer.begin <= place < trainer.end and not read_block(trainer, place, interrupt):
            return 0
        here = min(end, trainer.end) - place
        order = <const Py_ssize_t *> cnp.PyArray_DATA(trainer.ascending) + place - trainer.begin
        if differentiate_block(
            trainer, order, here, scale, total, squares, interrupt, kernels
        ) == -1:
            return -1
        place += here
    return 0


cdef bint read_block(Trainer trainer, Py_ssize_t place, Interrupt *interrupt) noexcept nogil:
    """Get a block; where that fails, end the operation with the error, as a signal handler does."""
    with gil:
        failure = None
        try:
            trainer.read(place)
        except BaseException as error:
            failure = error
        if failure is not None:
            interrupt.raised = True
            PyErr_SetObject(type(failure), failure)
    return not interrupt.raised


cdef int differentiate_block(
    Trainer trainer, const Py_ssize_t *order, Py_ssize_t count, double scale, double *total,
    double *squares, Interrupt *interrupt, const real *kernels
) noexcept nogil:
    """Do so for samples that are in memory."""
    cdef Py_ssize_t first = 0, part, i
    cdef real *predictions = <real *> trainer.predictions
    cdef real *kernel_grad = <real *> trainer.kernel_grad
    cdef Array4 out = trainer.targets
    cdef Residuals residuals
    out.data = predictions
    if pack_weights(&trainer.forward, interrupt) == -1:
        return -1
    if trainer.fused:
        for i in range(count):
            if stopped_after(trainer.done, interrupt):
                return 0
            squares[0] += differentiate_sample(
                trainer, order[i], scale, <real *> trainer.scratch, total
            )
            trainer.done += 1
        return 0
    while first < count and not stopped(interrupt):
        part = min(trainer.part, count - first)
        if run_correlation(
            &trainer.forward, trainer.images.data, order + first, part, NULL, &out, interrupt
        ) == -1:
            return -1
        residuals = Residuals(
            trainer.forward.micro, &trainer.targets, order + first, predictions, scale,
            trainer.squares
        )
        squares[0] += subtract_targets(
            &residuals, part, trainer.num_threads, trainer.itemsize, interrupt
        )
        if run_kernel_gradient(
            &trainer.gradient, trainer.images.data, order + first, part, predictions, kernel_grad,
            interrupt
        ) == -1:
            return -1
        for i in range(trainer.gradient.size):
            total[i] += kernel_grad[i]
        first += part
        trainer.done += part
    return 0


cdef double differentiate_sample(
    Trainer trainer, Py_ssize_t sample, double scale, real *scratch, double *total
) noexcept nogil:
    """Add the gradient of one sample to `total`, all in one tile that stays in the caches.

    The pixels are laid out once; the predictions become the output gradients where they are, as
    the kernel gradient by dots has them.
    """
    cdef const Correlation *forward = &trainer.forward
    cdef const Tiling *tiling = &trainer.gradient.tiling
    cdef Py_ssize_t row_size = trainer.gradient.row_size
    cdef Tile tile = tile_at(tiling, 0, forward.micro.lanes)
    cdef Runs runs = one_run(&tile, row_size)
    cdef Chunk chunk = chunk_of(forward, 0, 0, forward.num_blocks)
    cdef real *rows = scratch + trainer.layout.rows
    cdef const real *target = <const real *> trainer.targets.data + (
        sample * trainer.targets.n_stride
    )
    cdef const real *pixels
    cdef const Py_ssize_t *offset
    cdef real *row
    cdef double squares = 0
    cdef Py_ssize_t k, used = tile.height * tiling.pitch, size = trainer.gradient.size
    pixels = lay_out(
        tiling, &tile, &trainer.images, sample, 0, trainer.images.c, scratch, &offset
    )
    sum_vectors_of_pixels(
        forward, &runs, &chunk, 0, forward.channels, pixels, offset, NULL, rows
    )
    for k in range(trainer.weights.n):
        row = rows + k * row_size
        if trainer.activation == 0 and not trainer.biased:      # as it is
            squares += forward.micro.residual(
                tile.height, tile.width, row, tiling.pitch, target, tile.width, scale
            )
        else:
            squares += forward.micro.activated_residual(
                tile.height, tile.width, row, tiling.pitch, target, tile.width, scale,
                (<const real *> trainer.weights.data)[size + k] if trainer.biased else 0,
                trainer.activation, trainer.total + size + k
            )
        memset(row + used, 0, (row_size - used) * sizeof(real))
        target += trainer.plane
    add_dots(
        &trainer.gradient, &tile, trainer.weights.n, trainer.images.c * tiling.taps, rows, pixels,
        offset, scratch + trainer.layout.spare, total
    )
    return squares
