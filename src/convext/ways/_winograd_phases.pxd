# Winograd's convolutions with a stride of two: four images, or phases, each with its own taps.

from convext.ways._winograd_plan cimport Winograd, kernel_points_of, points_of, stride_of

# What a phase has along an axis: its taps, a stride apart, from the first one on, which meets the
# pixel `shift` of a tile.
cdef struct AxisPhase:
    Py_ssize_t taps, first, shift

cdef struct Phase:
    AxisPhase rows, columns
    Py_ssize_t first_value, first_kernel_value      # of those of all phases


cdef inline AxisPhase describe_axis(
    const Winograd *plan, Py_ssize_t first, Py_ssize_t phase
) noexcept nogil:
    """Describe a phase along an axis, given the tap of the first phase that meets pixel 0."""
    cdef Py_ssize_t step = -stride_of(plan) if plan.swapped else stride_of(plan)
    cdef AxisPhase axis
    axis.first = first + phase
    axis.shift = 0
    while not 0 <= axis.first < plan.taps:
        axis.first += step
        axis.shift += 1
    axis.taps = 0
    while 0 <= axis.first + axis.taps * step < plan.taps:
        axis.taps += 1
    return axis


cdef inline Phase describe_phase(const Winograd *plan, Py_ssize_t index) noexcept nogil:
    cdef Py_ssize_t row = index // stride_of(plan), column = index % stride_of(plan)
    cdef Py_ssize_t rest
    cdef Phase phase
    phase.rows = describe_axis(plan, plan.first_row, row)
    phase.columns = describe_axis(plan, plan.first_column, column)
    phase.first_value = phase.first_kernel_value = 0
    if row == 1:
        rest = plan.taps - phase.rows.taps
        phase.first_value += points_of(plan, rest) * plan.points
        phase.first_kernel_value += kernel_points_of(plan, rest) * plan.kernel_points
    if column == 1:
        rest = plan.taps - phase.columns.taps
        phase.first_value += points_of(plan, phase.rows.taps) * points_of(plan, rest)
        phase.first_kernel_value += (
            kernel_points_of(plan, phase.rows.taps) * kernel_points_of(plan, rest)
        )
    return phase
