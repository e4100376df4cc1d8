# How the compiled modules describe arrays and convolutions to each other.

ctypedef fused real:
    float
    double


# Names are turned into numbers in Python: one that the compiled code does not know is an error.
cdef inline int check_number(str what, int number, int last) except -1:
    if not 0 <= number <= last:
        raise ValueError(f"{what} {number} is unknown to the compiled code")
    return 0


# A four-dimensional array in any layout: images (N, C, H, W) or kernels (K, C, kh, kw).
# Strides are in elements.
cdef struct Array4:
    void *data
    Py_ssize_t n, c, h, w
    Py_ssize_t n_stride, c_stride, h_stride, w_stride


# Every `row_step`th row and `column_step`th column of an array, from the given ones on.
cdef inline Array4 every(
    const Array4 *array, Py_ssize_t row, Py_ssize_t row_step, Py_ssize_t column,
    Py_ssize_t column_step, Py_ssize_t itemsize
) noexcept nogil:
    cdef Array4 part = array[0]
    # A number, since there is no data where a convolution is only explained.
    part.data = <void *> (
        <Py_ssize_t> part.data + (row * part.h_stride + column * part.w_stride) * itemsize
    )
    part.h_stride *= row_step
    part.w_stride *= column_step
    return part


# The options of a convolution. The padding at the bottom and on the right follows from the size
# of the output.
cdef struct Geometry:
    Py_ssize_t stride_h, stride_w
    Py_ssize_t padding_top, padding_left
    Py_ssize_t dilation_h, dilation_w
    Py_ssize_t groups


# The pixels from the first tap to the last one along an axis.
cdef inline Py_ssize_t extent_of(Py_ssize_t taps, Py_ssize_t dilation) noexcept nogil:
    return (taps - 1) * dilation + 1


# Where the taps of a turned kernel begin for the first result of an input gradient.
cdef inline Py_ssize_t turned_origin(
    Py_ssize_t taps, Py_ssize_t dilation, Py_ssize_t padding
) noexcept nogil:
    return padding + 1 - extent_of(taps, dilation)


# An array of the given shape (N, C, H, W) that lies nowhere.
cdef inline Array4 contiguous(tuple shape):
    cdef Array4 description
    description.data = NULL
    description.n, description.c, description.h, description.w = shape
    description.w_stride = 1
    description.h_stride = description.w
    description.c_stride = description.h * description.w
    description.n_stride = description.c * description.c_stride
    return description


# From what Python calls a Geometry: a tuple, of which Cython would look up the items as slowly as
# those of any object.
cdef inline Geometry geometry_of(given):
    cdef Geometry geometry
    if not isinstance(given, tuple):
        raise TypeError(f"geometry must be a tuple, got {given!r}")
    cdef tuple items = <tuple> given
    geometry.stride_h, geometry.stride_w = <tuple> items[0]
    geometry.padding_top, geometry.padding_left = <tuple> items[1]
    geometry.dilation_h, geometry.dilation_w = <tuple> items[2]
    geometry.groups = items[3]
    return geometry


# Which of the three arrays of a convolution is computed.
cdef enum:
    FORWARD             # the outputs
    INPUT_GRADIENT      # the gradient with respect to the images
    KERNEL_GRADIENT     # that with respect to the kernels

# What is to be computed: this goes to each way of doing so. Gradients have the names of the arrays
# that they belong to, and their shapes.
cdef struct Convolution:
    int operation
    Array4 images           # (N, C, H, W)
    Array4 kernels          # (K, C/groups, kh, kw)
    Array4 outputs          # (N, K, OH, OW)
    const void *bias        # (K,), or NULL
    Geometry geometry
    size_t itemsize
    int num_threads
    bint asked              # for one way by its name, which then need be neither fast nor safe


# What the kernels, or their transpose, are moved over.
cdef inline const Array4 *source_of(const Convolution *convolution) noexcept nogil:
    if convolution.operation == INPUT_GRADIENT:
        return &convolution.outputs
    return &convolution.images


cdef inline const Array4 *result_of(const Convolution *convolution) noexcept nogil:
    if convolution.operation == INPUT_GRADIENT:
        return &convolution.images
    if convolution.operation == KERNEL_GRADIENT:
        return &convolution.kernels
    return &convolution.outputs


# The windows of results, stride and dilation aside: the taps as they meet the source, which are the
# kernels', for an input gradient turned around; and where the first one is for the first result.
cdef struct Windows:
    Array4 taps
    Py_ssize_t top, left


cdef inline Windows windows_of(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    if convolution.operation != INPUT_GRADIENT:
        return Windows(kernels[0], -geometry.padding_top, -geometry.padding_left)
    return Windows(
        every(kernels, kernels.h - 1, -1, kernels.w - 1, -1, convolution.itemsize),
        turned_origin(kernels.h, geometry.dilation_h, geometry.padding_top),
        turned_origin(kernels.w, geometry.dilation_w, geometry.padding_left)
    )


# The weights of a correlation: those of the first group, and how far the next one's are.
cdef struct Weights:
    Array4 of_group
    Py_ssize_t group_stride


# Those of kernels or, for an input gradient, of kernels whose channels are the kernels here.
cdef inline Weights weights_of(
    const Array4 *kernels, Py_ssize_t groups, bint swapped
) noexcept nogil:
    cdef Weights weights
    weights.group_stride = kernels.n // groups * kernels.n_stride
    weights.of_group = kernels[0]
    weights.of_group.n = kernels.n // groups
    if swapped:
        weights.of_group.n, weights.of_group.c = kernels.c, kernels.n // groups
        weights.of_group.n_stride, weights.of_group.c_stride = kernels.c_stride, kernels.n_stride
    return weights


# The arrays are still to be described.
cdef inline Convolution convolution_of(
    int operation, geometry, size_t itemsize, int num_threads
):
    cdef Convolution convolution
    convolution.operation = operation
    convolution.bias = NULL
    convolution.geometry = geometry_of(geometry)
    convolution.itemsize = itemsize
    convolution.num_threads = num_threads
    convolution.asked = False
    return convolution
