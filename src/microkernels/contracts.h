/* What each micro-kernel takes and does: its contract with the loops in the Cython modules.
 *
 *     MICROKERNEL(result, name, (parameters))
 *
 * or, where there is one for each size of a tile, in a table that the size is the index of,
 *
 *     MICROKERNELS(result, name, [entries], (parameters))
 *
 * This list is the only one: microkernel.h makes the members of the table of it, and microkernel.c
 * their values. So a new micro-kernel is an entry here, a static function of the same name in one of
 * the headers that microkernel.c includes, and its name in _dispatch.pxd.
 *
 * Pointers are `void *` so that both element types share this list: they point to elements of the
 * table's type. No pointer needs more than the alignment of an element. */

/* The building block, a product of two matrices whose rows may lie anywhere:
 *
 * sums[k * sums_stride + p] (+)= sum over t of weights[weight_offset[t] + k] * pixels[offset[t] + p]
 *
 * for every k < kernels and p < num_pixels, where num_pixels is a multiple of `lanes`. `kernels` is
 * the index in the table, 1 to max_kernels. The sum is added to what `sums` holds when
 * `accumulate` is not 0, else it replaces that. For each element the taps are added in chains of
 * CONVEXT_CHAIN in the order of t, whatever the tile: its sum does not depend on its neighbours. */
MICROKERNELS(void, correlate, [CONVEXT_MAX_KERNELS + 1],
             (ptrdiff_t num_taps, ptrdiff_t num_pixels, const void *weights,
              const ptrdiff_t *weight_offset, const void *pixels, const ptrdiff_t *offset,
              void *sums, ptrdiff_t sums_stride, int accumulate))

/* The same for max_kernels kernels whose weights lie in rows: that of kernel k and tap t is
 * rows[k * row_stride + t]. `row_stride` is not 0. */
MICROKERNEL(void, correlate_rows,
            (ptrdiff_t num_taps, ptrdiff_t num_pixels, const void *rows, ptrdiff_t row_stride,
             const void *pixels, const ptrdiff_t *offset, void *sums, ptrdiff_t sums_stride,
             int accumulate))

/* One kernel over several rows of outputs at once, so that each vector of pixels that is loaded
 * serves all rows under whose windows it lies:
 *
 * sums[r * sums_stride + p] (+)= sum over i < num_rows and j < num_columns of
 *     weights[i * num_columns + j] * pixels[(r + i) * pitch + offset[j] + p]
 *
 * for every r < rows and p < num_pixels, which is at least `lanes`, and a multiple of it unless
 * `accumulate` is 0. `rows` is the index in the table, 1 to max_slide_rows, and no more than
 * num_rows. The order of each sum is that of `correlate`, in one chain. */
MICROKERNELS(void, slide, [CONVEXT_MAX_SLIDE_ROWS + 1],
             (ptrdiff_t num_rows, ptrdiff_t num_columns, ptrdiff_t num_pixels, const void *weights,
              const void *pixels, ptrdiff_t pitch, const ptrdiff_t *offset, void *sums,
              ptrdiff_t sums_stride, int accumulate))

/* sums[r * taps + t] = sum over p of rows[r * row_stride + p] * pixels[offset[t] + p]
 *
 * for every r < rows and t < taps, over p < num_pixels, a multiple of `lanes`. `rows` and `taps`
 * are the indices in the table, 1 to max_rows and 1 to max_dot_taps[rows]. */
MICROKERNELS(void, dot, [CONVEXT_MAX_ROWS + 1][CONVEXT_MAX_DOT_TAPS + 1],
             (ptrdiff_t num_pixels, const void *rows, ptrdiff_t row_stride, const void *pixels,
              const ptrdiff_t *offset, void *sums))

/* The residual of a prediction, in place, for every row r < num_rows and column c < num_columns:
 *
 * predicted[r * pitch + c] = (predicted[r * pitch + c] - target[r * target_pitch + c]) * scale
 *
 * and zeros from the last column to the pitch. Returns the sum of the squares of predicted -
 * target. */
MICROKERNEL(double, residual,
            (ptrdiff_t num_rows, ptrdiff_t num_columns, void *predicted, ptrdiff_t pitch,
             const void *target, ptrdiff_t target_pitch, double scale))

/* to[i * to_stride + r] = from[r * row_stride + i * step] for every i < count and r < num_rows. The
 * elements between num_rows and to_stride may change if num_rows is less than `lanes`, those after
 * the last row stay. */
MICROKERNEL(void, interleave,
            (ptrdiff_t count, ptrdiff_t num_rows, const void *from, ptrdiff_t row_stride,
             ptrdiff_t step, void *to, ptrdiff_t to_stride))

/* The same, and sums[i] += from[r * row_stride + i * step] squared, for every r in order. `to_stride`
 * is a multiple of `lanes`, and at least num_rows. */
MICROKERNEL(void, interleave_and_square,
            (ptrdiff_t count, ptrdiff_t num_rows, const void *from, ptrdiff_t row_stride,
             ptrdiff_t step, void *to, ptrdiff_t to_stride, void *sums))

/* to[r * to_pitch + c] += from[r * from_pitch + c] for every r < num_rows and c < num_columns. */
MICROKERNEL(void, add_rows,
            (ptrdiff_t num_rows, ptrdiff_t num_columns, const void *from, ptrdiff_t from_pitch,
             void *to, ptrdiff_t to_pitch))

/* to[r * to_stride + i] = from[r * row_stride + i * step] for every r < num_rows and i < count. */
MICROKERNEL(void, pack,
            (ptrdiff_t num_rows, ptrdiff_t count, const void *from, ptrdiff_t row_stride,
             ptrdiff_t step, void *to, ptrdiff_t to_stride))

/* to[p * width + j] = pixels[p + offset[i] + j - start[i]] for every p < num_pixels, i < num_pieces
 * and start[i] <= j < start[i + 1], pieces of `lanes` elements at most. Goes through p and i in
 * order; up to a vector from start[i] on is read and written, which the next pieces overwrite. */
MICROKERNEL(void, unfold,
            (ptrdiff_t num_pixels, ptrdiff_t num_pieces, const void *pixels,
             const ptrdiff_t *offset, void *to, const ptrdiff_t *start, ptrdiff_t width))

/* to[j * to_stride + i] += from[j * stride + r * row_stride + i * step] squared, for every r < num_rows
 * in order, i < count and j < num_lines. */
MICROKERNEL(void, add_squares,
            (ptrdiff_t num_lines, ptrdiff_t count, ptrdiff_t num_rows, const void *from,
             ptrdiff_t stride, ptrdiff_t row_stride, ptrdiff_t step, void *to,
             ptrdiff_t to_stride))

/* Whether a transform of tiles is safe: from sums of squares, those of the pixels of a tile must be at
 * most `ratio` times those of each of its windows, and at most `most`. Instead of a column of a window,
 * those above and below it, of other windows of the tile, may count where they have less. Below
 * `least`, which is SMALL, squares may have vanished. Of a row of tiles, wherever in it they begin:
 * `num_tiles` of them, a pixel apart; the windows that count are `num_columns` of each of `num_rows`
 * rows. Rows of squares lie `pitch` elements apart; up to two vectors and the width of a tile beyond the
 * last one may be read. As long are the three rows of `scratch`. Along an axis where windows have one
 * pixel, there is one window. */
MICROKERNEL(int, uneven,
            (const convext_tile *tile, const convext_limits *limits, ptrdiff_t num_rows,
             ptrdiff_t num_columns, ptrdiff_t num_tiles, const void *squares, ptrdiff_t pitch,
             void *scratch))

/* Adds to `sums` the squares in some rows, and those in rows inside[0] <= y < inside[1] and columns
 * inside[2] <= x < inside[3], and raises sums[2] to the largest. Squares are read in whole vectors:
 * those beyond the last column are zero. */
MICROKERNEL(void, add_up,
            (ptrdiff_t num_rows, ptrdiff_t num_columns, const void *squares, ptrdiff_t pitch,
             const ptrdiff_t inside[4], double sums[3]))

/* The least sum of `width` neighbours in some rows that begin in one of the first `num_windows`
 * columns; at most 1e38, or 1e300 of double. */
MICROKERNEL(double, least_window,
            (ptrdiff_t num_rows, ptrdiff_t num_windows, ptrdiff_t width, const void *squares,
             ptrdiff_t pitch))

/* The least sum of `group` neighbours, 1, 2, 4 or 8, of at least as many columns as `lanes`: groups
 * begin in every `group`-th column, and end with the last one. */
MICROKERNEL(double, least_group,
            (ptrdiff_t num_rows, ptrdiff_t num_columns, int group, const void *squares,
             ptrdiff_t pitch))

/* Winograd's convolution of 3x3 taps, in tiles of 4x4 results, or of 5x5 taps, in tiles of 2x2: 36
 * values of a kernel and of the 6x6 pixels under a tile, their products, summed over the channels,
 * and the results from these sums. `taps` and `tile` are the sizes along an axis.
 * Side by side lie CONVEXT_WINOGRAD_CHANNELS channels of a pixel, here 32, and `width` kernels of a
 * channel; the i-th value lies i * stride elements behind the first. Counts of kernels and of
 * channels are rounded up to whole vectors.
 *
 * Kernels: tap t of channel c of kernel k is from[c * taps * taps * width + t * tap_stride + k],
 * and its values go to to[c * width + k], ... */
MICROKERNEL(void, winograd_kernels,
            (int taps, ptrdiff_t num_channels, ptrdiff_t num_kernels, const void *from,
             ptrdiff_t tap_stride, void *to, ptrdiff_t stride))

/* Pixels, of a row of tiles: pixel (y, x) of channel c is panel[y * row_stride + x * 32 + c], and
 * the values of a tile go to to[tile * 32 + c], ... */
MICROKERNEL(void, winograd_pixels,
            (int tile, ptrdiff_t num_tiles, ptrdiff_t num_channels, const void *panel,
             ptrdiff_t row_stride, void *to, ptrdiff_t stride))

/* Products, of one of the values:
 *
 * sums[tile * width + k] = sum over c of values[tile * 32 + c] * kernels[c * width + k]
 *
 * plus, unless these are the `first` channels, what is there. `errors` lies like `sums` and collects
 * what rounding loses where long sums are added, until the `last` channels add it, too. A sum does
 * not depend on its neighbours. */
MICROKERNEL(void, winograd_products,
            (ptrdiff_t num_tiles, ptrdiff_t num_channels, ptrdiff_t num_kernels, const void *values,
             const void *kernels, void *sums, void *errors, int first, int last))

/* Results, of a row of tiles: from the sums of a tile, sums[tile * width + k], ..., for each kernel
 * k plus bias[k], to to[y * row_stride + x * width + k] for every y < num_rows (at most `tile`) and
 * x < num_columns. */
MICROKERNEL(void, winograd_results,
            (int tile, ptrdiff_t num_kernels, const void *sums, ptrdiff_t stride, const void *bias,
             ptrdiff_t num_rows, ptrdiff_t num_columns, void *to, ptrdiff_t row_stride))

/* One axis of these transforms, for 1, 2 or 3 taps along it and tiles of four results: of taps + 3
 * pixels or sums, or of the taps, to taps + 3 values or to four results (one tap remains one value).
 * Element i < size of the j-th one of line n is from[n * from_step + j * from_stride + i]; it goes to
 * `to` likewise, where results are added to what is there if they are to `accumulate`. */
MICROKERNEL(void, winograd_lines,
            (int what, int taps, ptrdiff_t num_lines, ptrdiff_t size, const void *from,
             ptrdiff_t from_step, ptrdiff_t from_stride, void *to, ptrdiff_t to_step,
             ptrdiff_t to_stride, int accumulate))

/* Winograd's kernel gradient: the 36 values of 4x4 output gradients, for the products with those of
 * the pixels; and from the sums of these products the nine taps. Side by side lie 32 kernels of an
 * output gradient, or 32 channels of a sum.
 *
 * Output gradients, of a row of tiles: like the pixels, in tiles that do not overlap. */
MICROKERNEL(void, winograd_gradients,
            (ptrdiff_t num_tiles, ptrdiff_t num_kernels, const void *panel, ptrdiff_t row_stride,
             void *to, ptrdiff_t stride))

/* Products, for each of the 36 values, whose first elements lie `stride` apart:
 *
 * sums[k * 32 + c] = sum over the tiles of gradients[tile * 32 + k] * pixels[tile * 32 + c]
 *
 * A sum does not depend on its neighbours. */
MICROKERNEL(void, winograd_gradient_products,
            (ptrdiff_t num_tiles, ptrdiff_t num_kernels, ptrdiff_t num_channels,
             const void *gradients, const void *pixels, ptrdiff_t stride, void *sums,
             ptrdiff_t sums_stride))

/* Taps: from the sums of channel c of kernel k, sums[k * 32 + c], ..., to
 * to[t * to_stride + k * 32 + c] for every tap t. */
MICROKERNEL(void, winograd_taps,
            (ptrdiff_t num_kernels, ptrdiff_t num_channels, const void *sums, ptrdiff_t stride,
             void *to, ptrdiff_t to_stride))

/* Convolution by the fast Fourier transform, of two tiles of `rows` x `columns` pixels at a time:
 * multiples of `lanes`, powers of two from 16 or three times that. Their transform is 2 * rows *
 * columns elements in an order that only these functions know. `twiddles` are the roots of unity:
 * from 9 * (n / 2 - 2) on, for n = 4, 8, 12, 16, 24, 32, ..., real and imaginary part of w, w * w
 * and w * w * w for w = exp(-2 pi i k / n) and each k < n / 4. `strip` is scratch memory, 2 * rows *
 * lanes elements. */

/* The transform of two tiles: zero below their rows, and from `num_columns` on, which are rounded up
 * to whole vectors. Returns the sum of the squares of all pixels. Unless `least` is NULL, adds to it,
 * in a row for each group of pairs of rows `inside`, the squares of the pair that has least in a
 * column; those of the second tile lie `least_stride` elements on. */
MICROKERNEL(double, fft_forward,
            (ptrdiff_t rows, ptrdiff_t columns, const convext_fft_pixels tile[2],
             ptrdiff_t num_columns, const void *twiddles, void *strip, void *values,
             const convext_fft_rows inside[2], void *least, ptrdiff_t least_stride))

/* The complex conjugates of `count` values, in place. */
MICROKERNEL(void, fft_conjugate, (ptrdiff_t count, void *values))

/* Sums over the channels of the products of a kernel and of one, two or four pairs of tiles,
 * transformed back along one axis. From one pair to the next are `pair_stride` elements of `values`,
 * from one channel to the next `values_stride`. */
MICROKERNEL(void, fft_products,
            (ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t num_pairs, ptrdiff_t num_channels,
             const void *values, ptrdiff_t pair_stride, ptrdiff_t values_stride, const void *kernel,
             ptrdiff_t kernel_stride, const void *twiddles, void *sums, ptrdiff_t sums_stride))

/* The results, rows * columns times what they should be, plus `bias`; as many rows and columns of
 * each tile as it has. Added to what is there when `accumulate` is not 0. */
MICROKERNEL(void, fft_results,
            (ptrdiff_t rows, ptrdiff_t columns, const void *sums, double bias, const void *twiddles,
             void *strip, const convext_fft_pixels tile[2], int accumulate))

/* values[i] = activation(values[i] + bias) for every i < count. */
MICROKERNEL(void, activate, (ptrdiff_t count, void *values, double bias, int activation))

/* gradient[i] *= slope of the activation where its value is activated[i], for every i < count.
 * Returns the sum of the results. */
MICROKERNEL(double, activation_gradient,
            (ptrdiff_t count, void *gradient, const void *activated, int activation))

/* `activate`, `residual` and `activation_gradient` in one, for values of one channel in rows. Adds
 * the sum of the results to *bias_gradient; returns the sum of the squared residuals. */
MICROKERNEL(double, activated_residual,
            (ptrdiff_t num_rows, ptrdiff_t num_columns, void *values, ptrdiff_t pitch,
             const void *target, ptrdiff_t target_pitch, double scale, double bias, int activation,
             double *bias_gradient))

/* A channel with a kernel of its own:
 *
 * out[y * out_stride + x] = bias + sum over i < taps_h and j < taps_w of
 *     weights[i * taps_w + j] * pixels[y * row_step + i * tap_step + offset[j] + x]
 *
 * for every y < num_rows and x < num_columns. Whole vectors of pixels are read. A result does not
 * depend on its neighbours. */
MICROKERNEL(void, depthwise,
            (ptrdiff_t taps_h, ptrdiff_t taps_w, const void *weights, double bias,
             const void *pixels, ptrdiff_t row_step, ptrdiff_t tap_step, const ptrdiff_t *offset,
             ptrdiff_t num_rows, ptrdiff_t num_columns, void *out, ptrdiff_t out_stride))

/* Its gradient with respect to the kernel:
 *
 * sums[i * taps_w + j] = sum over y < num_rows and x < num_columns of
 *     gradient[y * gradient_stride + x] * pixels[y * row_step + i * tap_step + offset[j] + x]
 *
 * where rows of gradients go on, with zeros, to whole vectors. */
MICROKERNEL(void, depthwise_gradient,
            (ptrdiff_t taps_h, ptrdiff_t taps_w, const void *gradient, ptrdiff_t gradient_stride,
             const void *pixels, ptrdiff_t row_step, ptrdiff_t tap_step, const ptrdiff_t *offset,
             ptrdiff_t num_rows, ptrdiff_t num_columns, void *sums))
