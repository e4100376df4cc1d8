# What all ways of computing believe of the machine. What is to stay in a cache is given as a share
# of these sizes, where it is used. Results depend on where work is cut, so that the sizes are the
# same on every machine: those of an ordinary core. Larger caches bring little.

cdef extern from *:
    """
    enum { CONVEXT_LINE_BYTES = 64 };
    """
    enum:
        LINE_BYTES "CONVEXT_LINE_BYTES"     # of a cache line, and of the widest vector

cdef enum:
    L1_BYTES = 32 * 1024            # of a core
    L2_BYTES = 1024 * 1024          # of a core
    L3_BYTES = 16 * 1024 * 1024     # of all cores

    # Pixels that are laid out together, beside what is computed of them. With a quarter of L2 the
    # kernel gradients of 1x1 layers take 12 to 15 % longer.
    LAID_OUT_BYTES = 3 * L2_BYTES // 16

    # With fewer multiplications a second thread costs more than it brings. To go through a value
    # once counts as some of them.
    MIN_PRODUCTS_PER_THREAD = 250000
    PRODUCTS_PER_VALUE = 5

    # Memory, beside the caches: of all partial sums of a gradient together, and of what prepared
    # kernels keep in one way.
    MAX_PARTIAL_SUM_BYTES = 32 * 1024 * 1024
    MAX_KEPT_BYTES = 64 * 1024 * 1024
