# The table of micro-kernels, and what their callers need.
cdef extern from "microkernel.h" nogil:
    enum:
        CHAIN "CONVEXT_CHAIN"
        POINTS "CONVEXT_WINOGRAD_POINTS"
        VALUES "CONVEXT_WINOGRAD_VALUES"
        PHASE_TILE "CONVEXT_WINOGRAD_PHASE_TILE"
        AT_INFINITY "CONVEXT_WINOGRAD_AT_INFINITY"
        AT_A "CONVEXT_WINOGRAD_AT_A"
    const Py_ssize_t WINOGRAD_CHANNELS "CONVEXT_WINOGRAD_CHANNELS"

    const int EVEN "CONVEXT_EVEN"
    const int SMALL "CONVEXT_SMALL"
    ctypedef struct TileOfSquares "convext_tile":
        Py_ssize_t height, width
        Py_ssize_t window_height, window_width
        Py_ssize_t windows
    ctypedef struct Limits "convext_limits":
        double ratio, most, least

    const int WINOGRAD_PIXELS "CONVEXT_WINOGRAD_PIXELS"
    const int WINOGRAD_TAPS "CONVEXT_WINOGRAD_TAPS"
    const int WINOGRAD_RESULTS "CONVEXT_WINOGRAD_RESULTS"

    ctypedef struct FftPixels "convext_fft_pixels":
        void *data
        Py_ssize_t pitch
        Py_ssize_t rows, columns
    ctypedef struct FftRows "convext_fft_rows":
        Py_ssize_t top, height, spread
        Py_ssize_t pairs, group

    # What each micro-kernel takes stands in contracts.h alone: the C compiler, which sees it there,
    # checks and converts the arguments. Here is what they return.
    ctypedef void (*Microkernel)(...)
    ctypedef int (*Judging)(...)
    ctypedef double (*Summing)(...)

    ctypedef struct Microkernels "convext_microkernels":
        int lanes, max_kernels, max_rows, max_slide_rows, winograd_width
        int *correlate_vectors
        int *max_dot_taps
        const char *activations

        Microkernel *correlate          # by the number of kernels
        Microkernel *slide              # by that of rows
        Microkernel **dot               # by those of rows and of taps
        Microkernel correlate_rows
        Summing residual
        Microkernel add_rows, pack, unfold
        Microkernel interleave, interleave_and_square
        Microkernel activate
        Summing activation_gradient, activated_residual

        Microkernel add_squares, add_up
        Judging uneven
        Summing least_window, least_group

        Microkernel winograd_kernels, winograd_pixels, winograd_products, winograd_results
        Microkernel winograd_lines
        Microkernel winograd_gradients, winograd_gradient_products, winograd_taps
        Microkernel depthwise, depthwise_gradient
        Summing fft_forward
        Microkernel fft_conjugate, fft_products, fft_results


# The micro-kernels in use for elements of `itemsize` bytes (4 or 8).
cdef const Microkernels *microkernels(size_t itemsize) noexcept nogil
