# The rows of an output that a transform is not safe for, since its errors reach all results of a
# tile: they are computed directly instead.
#
# A result may have errors in proportion to the norm of the pixels under its window, not to that of
# all pixels of its tile: docs/winograd.md and docs/fft.md say what follows from the limits here.

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from convext.base._dispatch cimport Limits
from convext.base._geometry cimport Array4, real

cdef struct Bands:
    Py_ssize_t samples, count       # bands of a sample: rows of tiles
    Py_ssize_t *row                 # [count + 1] where they begin
    char *direct                    # [samples * count] whether a band is to be computed directly
    bint any                        # whether some are

# Bands that follow each other: of one sample, or whole samples.
cdef struct Region:
    Py_ssize_t first_sample, num_samples
    Py_ssize_t top, bottom
    Py_ssize_t next                 # the band after them, of all samples


cdef inline Bands no_bands() noexcept nogil:
    cdef Bands bands
    memset(&bands, 0, sizeof(Bands))
    return bands


# -1 when memory runs out. `row` is left to be filled.
cdef inline int init_bands(Bands *bands, Py_ssize_t samples, Py_ssize_t count) noexcept nogil:
    cdef size_t rows = (count + 1) * sizeof(Py_ssize_t)
    bands.row = <Py_ssize_t *> malloc(rows + samples * count)
    if bands.row == NULL:
        return -1
    bands.samples = samples
    bands.count = count
    bands.direct = <char *> bands.row + rows
    bands.any = False
    memset(bands.direct, 0, samples * count)
    return 0


cdef inline void free_bands(Bands *bands) noexcept nogil:
    free(bands.row)


# Threads may mark the same band at a time.
cdef inline void mark_band(Bands *bands, Py_ssize_t sample, Py_ssize_t band) noexcept nogil:
    bands.direct[sample * bands.count + band] = True
    bands.any = True


cdef inline void mark_all(Bands *bands) noexcept nogil:
    memset(bands.direct, True, bands.samples * bands.count)
    bands.any = True


cdef inline Py_ssize_t last_marked(
    const Bands *bands, Py_ssize_t sample, Py_ssize_t i
) noexcept nogil:
    """The end of the marked bands that follow each other from `i` on, in a sample."""
    while i < (sample + 1) * bands.count and bands.direct[i]:
        i += 1
    return i


cdef inline bint next_region(const Bands *bands, Region *region) noexcept nogil:
    """Find the next marked bands; False where there are none."""
    cdef Py_ssize_t i = region.next, sample
    if not bands.any:
        return False
    while i < bands.samples * bands.count and not bands.direct[i]:
        i += 1
    if i == bands.samples * bands.count:
        return False
    sample = i // bands.count
    region.first_sample = sample
    region.num_samples = 1
    region.next = last_marked(bands, sample, i)
    region.top = bands.row[i - sample * bands.count]
    region.bottom = bands.row[region.next - sample * bands.count]
    if region.next - i == bands.count:
        while sample + 1 < bands.samples and (
            last_marked(bands, sample + 1, region.next) - region.next == bands.count
        ):
            sample += 1
            region.num_samples += 1
            region.next += bands.count
    return True


cdef inline Array4 samples_of(
    const Array4 *array, const Region *region, size_t itemsize
) noexcept nogil:
    cdef Array4 part = array[0]
    part.data = <char *> part.data + (
        region.first_sample * part.n_stride * <Py_ssize_t> itemsize
    )
    part.n = region.num_samples
    return part


cdef inline Array4 rows_of(
    const Array4 *array, const Region *region, size_t itemsize
) noexcept nogil:
    cdef Array4 part = samples_of(array, region, itemsize)
    part.data = <char *> part.data + region.top * part.h_stride * <Py_ssize_t> itemsize
    part.h = region.bottom - region.top
    return part


# Squares, and products of transformed values, stay between these limits.
cdef inline Limits limits_of(size_t itemsize, double ratio) noexcept nogil:
    cdef Limits limits
    limits.ratio = ratio
    limits.most = 2.**80 if itemsize == sizeof(float) else 2.**640
    limits.least = 2.**-100 if itemsize == sizeof(float) else 2.**-800
    return limits


# Kernels of more than this, the sum of their squares, may make transforms overflow.
cdef inline double most_of_kernels(size_t itemsize) noexcept nogil:
    return 2.**60 if itemsize == sizeof(float) else 2.**480


cdef inline bint has_small_pixels(
    const Array4 *source, const real *image, Py_ssize_t channels, Py_ssize_t top,
    Py_ssize_t bottom, Py_ssize_t left, Py_ssize_t right, double least
) noexcept nogil:
    """Whether squares of pixels of a rectangle may have vanished that are not zero."""
    cdef Py_ssize_t c, y, x
    cdef const real *row
    cdef real value
    cdef real smallest = <real> least
    for c in range(channels):
        for y in range(max(<Py_ssize_t> 0, top), min(source.h, bottom)):
            row = image + c * source.c_stride + y * source.h_stride
            for x in range(max(<Py_ssize_t> 0, left), min(source.w, right)):
                value = row[x * source.w_stride]
                if value != 0 and value * value < smallest:
                    return True
    return False
