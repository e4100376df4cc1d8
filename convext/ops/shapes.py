"""Shapes of convolutions: padding, output sizes, and whether arrays fit each other."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from .._support.checks import check_size, integer, integer_pair
from .._support.messages import format_size

IMAGES = {3: "(C, H, W)", 4: "(N, C, H, W)"}
KERNELS = {4: "(K, C/groups, kh, kw)"}

# The compiled code adds and multiplies positions in the padded image, so that no sum of them and no
# product with the length of a row may overflow.
LARGEST_PADDING = 2**31 - 1

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = (
    int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | Literal["valid", "same"]
)


def seems_channels_last(shape: Shape) -> bool:
    """Return whether images (..., C, H, W) of this shape seem to be (..., H, W, C).

    That is where the last size is that of colours, and the others are those of an image.
    """
    if len(shape) < 3:
        return False
    channels, rows, last = shape[-3:]
    longest = 8 if last in (3, 4) else 4
    return (
        last in (1, 3, 4)
        and min(channels, rows) >= 16
        and max(channels, rows) <= longest * min(channels, rows)
    )


class Geometry(NamedTuple):
    """How the windows of a convolution lie on its image: what the compiled operations are told."""

    stride: tuple[int, int]
    padding_before: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class Convolution(NamedTuple):
    """The options of a convolution, resolved for the sizes of its arrays."""

    stride: tuple[int, int]
    padding_before: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    output_shape: tuple[int, int]

    @property
    def geometry(self) -> Geometry:
        """What is left without the size of the output."""
        return Geometry(*self[:4])


def resolve(
    image_shape: Shape,
    kernel_shape: Shape,
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    image_name: str = "input_data",
) -> Convolution:
    """Check the options against the sizes (..., H, W) of image and kernel and resolve them.

    `image_name` is what messages call the image.
    """
    strides = integer_pair("stride", stride, minimum=1)
    dilations = integer_pair("dilation", dilation, minimum=1)
    num_groups = integer("groups", groups, minimum=1)
    height, width = image_shape[-2:]
    kernel_size = kernel_shape[-2:]
    extents = [(kernel_size[axis] - 1) * dilations[axis] + 1 for axis in range(2)]
    margins = _margins(padding, (height, width), extents, strides)

    padded = (height + sum(margins[0]), width + sum(margins[1]))
    if extents[0] > padded[0] or extents[1] > padded[1]:
        dilated = f" (dilated to {format_size(extents)})" if dilations != (1, 1) else ""
        with_zeros = f" (padded to {format_size(padded)})" if padded != (height, width) else ""
        raise ValueError(
            f"kernels of {format_size(kernel_size)}{dilated} do not fit "
            f"{image_name} of {format_size((height, width))}{with_zeros}"
        )
    out_h, out_w = ((padded[axis] - extents[axis]) // strides[axis] + 1 for axis in range(2))
    check_size("the result for this padding", (out_h, out_w))
    most = max(*margins[0], *margins[1])
    if most > LARGEST_PADDING:
        raise ValueError(
            f"padding is too large: {most} zeros on a side (at most {LARGEST_PADDING})"
        )
    # A stride beyond the padded image gives one output as any other does; the compiled code
    # multiplies with it, so it is kept small.
    return Convolution(
        stride=(min(strides[0], padded[0]), min(strides[1], padded[1])),
        padding_before=(margins[0][0], margins[1][0]),
        dilation=dilations,
        groups=num_groups,
        output_shape=(out_h, out_w),
    )


def window_of(
    kernel_size: Shape, options: Geometry | Convolution, axis: int, begin: int, end: int
) -> tuple[int, int]:
    """Return from where to where rows (axis 0) or columns of the output see the padded image."""
    stride, before = options.stride[axis], options.padding_before[axis]
    reach = (kernel_size[axis] - 1) * options.dilation[axis] + 1
    return begin * stride - before, (end - 1) * stride - before + reach


def check_channels(
    image_shape: Shape,
    kernel_shape: Shape,
    groups: int,
    image_name: str = "input_data",
) -> None:
    """Raise ValueError unless kernels (K, C/groups, kh, kw) fit images (..., C, H, W)."""
    channels = image_shape[-3]
    check_groups(channels, kernel_shape[0], groups, image_name)
    if kernel_shape[1] * groups != channels:
        in_groups = f" in {groups} groups ({channels // groups} each)" if groups > 1 else ""
        fits = image_shape[-1] == kernel_shape[1] * groups
        hint = ": if its channels come last, give np.moveaxis(..., -1, -3)" if fits else ""
        raise ValueError(
            f"kernels has {kernel_shape[1]} channels but {image_name} has {channels}{in_groups} "
            f"(shapes {kernel_shape} and {image_shape}){hint}"
        )


def check_groups(
    channels: int, num_kernels: int, groups: int, image_name: str = "input_data"
) -> None:
    """Raise ValueError unless channels and kernels can be shared out to the groups."""
    for count, name in ((channels, f"channels of {image_name}"), (num_kernels, "kernels")):
        if count % groups:
            raise ValueError(f"groups is {groups}, which does not divide the {count} {name}")


def _margins(
    padding: object, sizes: tuple[int, int], extents: list[int], strides: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the padding before and after each axis."""
    if isinstance(padding, str):
        if padding.lower() == "valid":
            return [(0, 0), (0, 0)]
        if padding.lower() == "same":
            return [_same_margin(sizes[axis], extents[axis], strides[axis]) for axis in range(2)]
        raise ValueError(
            f"padding must be an integer, a pair, a pair of pairs, 'valid' or 'same', "
            f"got {padding!r}"
        )
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) != 2 or not all(
            isinstance(p, (tuple, list)) and len(p) == 2 for p in padding
        ):
            raise ValueError(
                f"padding as a pair of pairs must be ((top, bottom), (left, right)), "
                f"got {padding!r}"
            )
        return [integer_pair(f"padding[{axis}]", padding[axis], minimum=0) for axis in range(2)]
    height, width = integer_pair("padding", padding, minimum=0)
    return [(height, height), (width, width)]


def edges_of(padding: Padding) -> Padding:
    """Return any form of `padding` as ((top, bottom), (left, right)), or as "same"."""
    if isinstance(padding, str) and padding.lower() == "same":
        return "same"
    vertical, horizontal = _margins(padding, (1, 1), [1, 1], (1, 1))
    return vertical, horizontal


def _same_margin(size: int, extent: int, stride: int) -> tuple[int, int]:
    """Return the padding that makes ceil(size / stride) outputs, as TensorFlow defines it."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2
