# A convolution of many channels with few kernels: first the products of every pixel with all taps,
# summed over the channels, then these sums, shifted to the results that they belong to.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Convolution, Weights
from convext.ways._ways cimport Way

cdef struct ShiftedSums:
    const Convolution *convolution
    const Microkernels *micro
    const Array4 *source
    const Array4 *out
    Weights weights
    Py_ssize_t channels, kernels    # of a group
    # Source pixel (y, x) meets tap (i, j) in the result (y + down + i * step_h, x + ...).
    Py_ssize_t down, right, step_h, step_w
    Py_ssize_t bands                # of the results of a sample and group: a task computes one
    Py_ssize_t sums                 # of each pixel: the taps of all kernels
    Py_ssize_t num_blocks, width    # which are computed in blocks of `width`
    Py_ssize_t strip_h              # source rows whose sums are in the scratch memory,
    Py_ssize_t columns              # and the parts into which they are cut
    int num_threads
    bint unfit                      # whether weights are not finite
    void *packed                    # the weights,
    Py_ssize_t *weight_offset       # [channels] where in a block those of each channel begin,
    Py_ssize_t *channel_offset      # [channels] and where its pixels, in the source or the copy

cdef Way shifted_sums_way() noexcept
