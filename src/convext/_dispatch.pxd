cdef extern from "microkernel.h" nogil:
    enum:
        BLOCK "CONVEXT_BLOCK"
        LINEAR "CONVEXT_LINEAR"
        RELU "CONVEXT_RELU"
        LEAKY_RELU "CONVEXT_LEAKY_RELU"
        SIGMOID "CONVEXT_SIGMOID"
        TANH "CONVEXT_TANH"

    ctypedef void correlate_kernel "convext_correlate"(
        Py_ssize_t num_taps, Py_ssize_t num_pixels, const void *weights,
        const Py_ssize_t *weight_offset, const void *pixels, const Py_ssize_t *offset, void *sums,
        Py_ssize_t sums_stride, int accumulate)

    ctypedef void correlate_rows_kernel "convext_correlate_rows"(
        Py_ssize_t num_taps, Py_ssize_t num_pixels, const void *rows, Py_ssize_t row_stride,
        const void *pixels, const Py_ssize_t *offset, void *sums, Py_ssize_t sums_stride,
        int accumulate)

    ctypedef void slide_kernel "convext_slide"(
        Py_ssize_t num_rows, Py_ssize_t num_columns, Py_ssize_t num_pixels, const void *weights,
        const void *pixels, Py_ssize_t pitch, const Py_ssize_t *offset, void *sums,
        Py_ssize_t sums_stride, int accumulate)

    ctypedef void dot_kernel "convext_dot"(
        Py_ssize_t num_pixels, const void *rows, Py_ssize_t row_stride, const void *pixels,
        const Py_ssize_t *offset, void *sums)

    ctypedef double residual_kernel "convext_residual"(
        Py_ssize_t num_rows, Py_ssize_t num_columns, void *predicted, Py_ssize_t pitch,
        const void *target, Py_ssize_t target_pitch, double scale)

    ctypedef void add_rows_kernel "convext_add_rows"(
        Py_ssize_t num_rows, Py_ssize_t num_columns, const void *source, Py_ssize_t source_pitch,
        void *to, Py_ssize_t to_pitch)

    ctypedef void activate_kernel "convext_activate"(
        Py_ssize_t count, void *values, double bias, int activation)

    ctypedef double activation_gradient_kernel "convext_activation_gradient"(
        Py_ssize_t count, void *gradient, const void *activated, int activation)

    ctypedef double activated_residual_kernel "convext_activated_residual"(
        Py_ssize_t num_rows, Py_ssize_t num_columns, void *values, Py_ssize_t pitch,
        const void *target, Py_ssize_t target_pitch, double scale, double bias, int activation,
        double *bias_gradient)

    ctypedef void interleave_kernel "convext_interleave"(
        Py_ssize_t count, Py_ssize_t num_rows, const void *rows, Py_ssize_t row_stride,
        Py_ssize_t step, void *to, Py_ssize_t to_stride)

    ctypedef void interleave_and_square_kernel "convext_interleave_and_square"(
        Py_ssize_t count, Py_ssize_t num_rows, const void *rows, Py_ssize_t row_stride,
        Py_ssize_t step, void *to, Py_ssize_t to_stride, void *sums)

    ctypedef void pack_kernel "convext_pack"(
        Py_ssize_t num_rows, Py_ssize_t count, const void *source, Py_ssize_t row_stride,
        Py_ssize_t step, void *to, Py_ssize_t to_stride
    ) noexcept nogil
    ctypedef void unfold_kernel "convext_unfold"(
        Py_ssize_t num_pixels, Py_ssize_t num_pieces, const void *pixels,
        const Py_ssize_t *offset, void *to, const Py_ssize_t *start, Py_ssize_t width)

    ctypedef void add_squares_kernel "convext_add_squares"(
        Py_ssize_t count, Py_ssize_t num_rows, const void *source, Py_ssize_t row_stride,
        Py_ssize_t step, void *to)

    const int EVEN "CONVEXT_EVEN"
    const int SMALL "CONVEXT_SMALL"
    ctypedef struct TileOfSquares "convext_tile":
        Py_ssize_t height, width
        Py_ssize_t window_height, window_width
        Py_ssize_t windows
    ctypedef struct Limits "convext_limits":
        double ratio, most, least
    ctypedef int uneven_kernel "convext_uneven"(
        const TileOfSquares *tile, const Limits *limits, Py_ssize_t num_rows,
        Py_ssize_t num_columns, Py_ssize_t num_tiles, const void *squares, Py_ssize_t pitch,
        void *scratch)

    ctypedef double add_up_kernel "convext_add_up"(
        Py_ssize_t num_rows, Py_ssize_t num_columns, const void *squares, Py_ssize_t pitch,
        double *most)
    ctypedef double least_window_kernel "convext_least_window"(
        Py_ssize_t num_rows, Py_ssize_t num_windows, Py_ssize_t width, const void *squares,
        Py_ssize_t pitch)
    ctypedef double least_group_kernel "convext_least_group"(
        int four, Py_ssize_t count, Py_ssize_t first, Py_ssize_t last, Py_ssize_t height,
        Py_ssize_t cells, Py_ssize_t top, const void *pixels, Py_ssize_t pitch)

    ctypedef void winograd_kernels_kernel "convext_winograd_kernels"(
        int taps, Py_ssize_t num_channels, Py_ssize_t num_kernels, const void *kernels,
        Py_ssize_t tap_stride, void *to, Py_ssize_t stride)

    ctypedef void winograd_pixels_kernel "convext_winograd_pixels"(
        int tile, Py_ssize_t num_tiles, Py_ssize_t num_channels, const void *panel,
        Py_ssize_t row_stride, void *to, Py_ssize_t stride)

    ctypedef void winograd_products_kernel "convext_winograd_products"(
        Py_ssize_t num_tiles, Py_ssize_t num_channels, Py_ssize_t num_kernels, const void *values,
        const void *kernels, void *sums, void *errors, int first, int last)

    ctypedef void winograd_results_kernel "convext_winograd_results"(
        int tile, Py_ssize_t num_kernels, const void *sums, Py_ssize_t stride, const void *bias,
        Py_ssize_t num_rows, Py_ssize_t num_columns, void *to, Py_ssize_t row_stride)

    const int WINOGRAD_PIXELS "CONVEXT_WINOGRAD_PIXELS"
    const int WINOGRAD_TAPS "CONVEXT_WINOGRAD_TAPS"
    const int WINOGRAD_RESULTS "CONVEXT_WINOGRAD_RESULTS"
    ctypedef void winograd_lines_kernel "convext_winograd_lines"(
        int what, int taps, Py_ssize_t num_lines, Py_ssize_t size, const void *lines,
        Py_ssize_t from_step, Py_ssize_t from_stride, void *to, Py_ssize_t to_step,
        Py_ssize_t to_stride, int accumulate)

    ctypedef void winograd_gradients_kernel "convext_winograd_gradients"(
        Py_ssize_t num_tiles, Py_ssize_t num_kernels, const void *panel, Py_ssize_t row_stride,
        void *to, Py_ssize_t stride)

    ctypedef void winograd_gradient_products_kernel "convext_winograd_gradient_products"(
        Py_ssize_t num_tiles, Py_ssize_t num_kernels, Py_ssize_t num_channels,
        const void *gradients, const void *pixels, Py_ssize_t stride, void *sums,
        Py_ssize_t sums_stride)

    ctypedef void winograd_taps_kernel "convext_winograd_taps"(
        Py_ssize_t num_kernels, Py_ssize_t num_channels, const void *sums, Py_ssize_t stride,
        void *to, Py_ssize_t to_stride)

    ctypedef void depthwise_kernel "convext_depthwise"(
        Py_ssize_t taps_h, Py_ssize_t taps_w, const void *weights, double bias, const void *pixels,
        Py_ssize_t row_step, Py_ssize_t tap_step, const Py_ssize_t *offset, Py_ssize_t num_rows,
        Py_ssize_t num_columns, void *out, Py_ssize_t out_stride)

    ctypedef void depthwise_gradient_kernel "convext_depthwise_gradient"(
        Py_ssize_t taps_h, Py_ssize_t taps_w, const void *gradient, Py_ssize_t gradient_stride,
        const void *pixels, Py_ssize_t row_step, Py_ssize_t tap_step, const Py_ssize_t *offset,
        Py_ssize_t num_rows, Py_ssize_t num_columns, void *sums)

    ctypedef struct FftPixels "convext_fft_pixels":
        void *data
        Py_ssize_t pitch
        Py_ssize_t rows, columns

    ctypedef double fft_forward_kernel "convext_fft_forward"(
        Py_ssize_t rows, Py_ssize_t columns, const FftPixels *tile, Py_ssize_t num_columns,
        const void *twiddles, void *strip, void *values)

    ctypedef void fft_conjugate_kernel "convext_fft_conjugate"(Py_ssize_t count, void *values)

    ctypedef void fft_products_kernel "convext_fft_products"(
        Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t num_pairs, Py_ssize_t num_channels,
        const void *values, Py_ssize_t pair_stride, Py_ssize_t values_stride, const void *kernel,
        Py_ssize_t kernel_stride, const void *twiddles, void *sums, Py_ssize_t sums_stride)

    ctypedef void fft_results_kernel "convext_fft_results"(
        Py_ssize_t rows, Py_ssize_t columns, const void *sums, double bias, const void *twiddles,
        void *strip, const FftPixels *tile, int accumulate)

    const Py_ssize_t WINOGRAD_CHANNELS "CONVEXT_WINOGRAD_CHANNELS"

    ctypedef struct Microkernels "convext_microkernels":
        int lanes
        int max_kernels
        int correlate_vectors[15]
        int max_rows
        int max_dot_taps[5]
        correlate_kernel *correlate[15]
        correlate_rows_kernel *correlate_rows
        int max_slide_rows
        slide_kernel *slide[5]
        dot_kernel *dot[5][25]
        residual_kernel *residual
        add_rows_kernel *add_rows
        activate_kernel *activate
        activation_gradient_kernel *activation_gradient
        activated_residual_kernel *activated_residual
        interleave_kernel *interleave
        interleave_and_square_kernel *interleave_and_square
        pack_kernel *pack
        unfold_kernel *unfold
        add_squares_kernel *add_squares
        uneven_kernel *uneven
        least_window_kernel *least_window
        least_group_kernel *least_group
        add_up_kernel *add_up
        int winograd_width
        winograd_kernels_kernel *winograd_kernels
        winograd_pixels_kernel *winograd_pixels
        winograd_products_kernel *winograd_products
        winograd_results_kernel *winograd_results
        winograd_lines_kernel *winograd_lines
        winograd_gradients_kernel *winograd_gradients
        winograd_gradient_products_kernel *winograd_gradient_products
        winograd_taps_kernel *winograd_taps
        depthwise_kernel *depthwise
        depthwise_gradient_kernel *depthwise_gradient
        fft_forward_kernel *fft_forward
        fft_conjugate_kernel *fft_conjugate
        fft_products_kernel *fft_products
        fft_results_kernel *fft_results


# The micro-kernels in use for elements of `itemsize` bytes (4 or 8).
cdef const Microkernels *microkernels(size_t itemsize) noexcept nogil
