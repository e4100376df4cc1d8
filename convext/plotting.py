"""Drawing losses, kernels and images (needs Matplotlib, which is in the ``plot`` extra)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._support.atomic_files import FilePath, atomic_write, path_of
from ._support.checks import as_float64, as_numeric_array, check_dimensions, check_not_masked
from ._support.messages import format_loss
from .image.pictures import as_floats
from .image.pillow_files import suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Matrix: TypeAlias = npt.NDArray[np.float64]

_SUFFIXES = (".png", ".pdf", ".svg")

# More than these would be too small to see.
_MOST_KERNELS = 64
_MOST_CHANNELS = 16

# Inches: the largest panel of kernels, a value's cell where there is room, and the smallest cell
# into which the value is written.
_PANEL = 7.0
_CELL = 0.55
_CELL_WITH_VALUE = 0.4

# Pixels of each side of an image that are shown: detail is lost in a whole picture.
_DETAIL = 150

# Between channels, in widths of a channel; and between kernels, in inches (room for a number) and
# at most in widths of a channel.
_CHANNEL_GAP = 0.06
_KERNEL_GAP = 0.25
_LARGEST_KERNEL_GAP = 0.35


def plot_training(
    losses: Sequence[float],
    kernels: npt.ArrayLike,
    file: FilePath | None = None,
    val_losses: Sequence[float] = (),
) -> Figure:
    """Draw the loss of each epoch and, beside it, the kernels.

    The loss has a logarithmic axis when it spans more than a factor of ten.

    Parameters
    ----------
    losses : sequence of float
        The loss of each epoch.
    kernels : array_like
        (num_kernels, C, kh, kw).
    file : path, optional
        Where to save the figure: .png, .pdf or .svg.
    val_losses : sequence of float, optional
        The loss of each epoch on validation data.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError, ValueError, OSError
        As `plot_kernels` does; and where there is no loss.

    Examples
    --------
    >>> figure = plot_training([0.5, 0.2, 0.1], np.ones((2, 3, 2, 2)))
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['Loss: 0.1000 after 3 epochs', '2 kernels of 3x2x2']
    """
    grid = _Grid(kernels)
    if len(losses) == 0:
        raise ValueError("losses is empty: there must be at least one epoch")
    width, height = grid.inches
    figure = _new_figure(6.0 + width, max(4.0, height), file)
    left, right = figure.subplots(1, 2, width_ratios=(6.0, width))
    _draw_losses(left, losses, val_losses)
    grid.draw(right)
    _save(figure, file)
    return figure


def plot_kernels(kernels: npt.ArrayLike, file: FilePath | None = None) -> Figure:
    """Draw the kernels.

    Parameters
    ----------
    kernels : array_like
        (num_kernels, C, kh, kw).
    file : path, optional
        Where to save the figure: .png, .pdf or .svg.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        Matplotlib is missing.
    ValueError
        `kernels` is not four-dimensional, or the suffix is unknown.
    OSError
        The folder of `file` does not exist or is not writable, or the disk is full.

    Examples
    --------
    >>> figure = plot_kernels(np.ones((64, 1, 5, 5)))
    >>> figure.axes[0].get_title()
    '64 kernels of 1x5x5'
    """
    grid = _Grid(kernels)
    figure = _new_figure(*grid.inches, file)
    grid.draw(figure.subplots())
    _save(figure, file)
    return figure


def plot_solution(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    predicted: npt.ArrayLike,
    kernels: npt.ArrayLike,
    file: FilePath | None = None,
) -> Figure:
    """Draw an image before and after a filter, what kernels make of it, what is left, and them.

    Parameters
    ----------
    before : array_like, (C, H, W)
        The image before. With three channels it is drawn in colour, else its first one in grey.
    after, predicted : array_like, (K, OH, OW)
        The image after, and the convolution, which are compared.
    kernels : array_like
        (num_kernels, C, kh, kw).
    file : path, optional
        Where to save the figure: .png, .pdf or .svg.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError, ValueError, OSError
        As `plot_kernels` does; and where shapes do not fit.

    Examples
    --------
    >>> image = np.arange(16.0).reshape(1, 4, 4) / 16
    >>> figure = plot_solution(image, image, image, np.ones((1, 1, 1, 1)))
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['before', 'after', 'predicted']
    """
    images = {"before": before, "after": after, "predicted": predicted}
    arrays = {name: as_float64(as_numeric_array(name, array)) for name, array in images.items()}
    for name, array in arrays.items():
        check_dimensions(name, array.shape, {3: "(C, H, W)"})
    residual = arrays["predicted"] - arrays["after"]
    grid = _Grid(kernels)
    width, height = grid.inches
    figure = _new_figure(8.5 + width, max(7.0, height), file)
    parts: Any = figure.subfigures(1, 2, width_ratios=(8.5, width))
    left, right = parts
    panels = left.subplots(2, 2).ravel()
    for axes, (name, array) in zip(panels, arrays.items(), strict=False):
        like = arrays["after"] if name == "predicted" else array
        _draw_image(axes, name, _in_range_of(like, array))
    _draw_residual(panels[3], residual)
    grid.draw(right.subplots())
    _save(figure, file)
    return figure


def plot_results(
    losses: Sequence[float],
    val_losses: Sequence[float],
    pictures: Mapping[str, npt.NDArray[Any]],
    file: FilePath | None = None,
) -> Figure:
    """Draw the loss of each epoch and, beside it, the middle of some images.

    Parameters
    ----------
    losses, val_losses : sequence of float
        The loss of each epoch, in training and on validation data.
    pictures : mapping
        Images, (1, H, W) or (3, H, W), by their titles; of one size: floats in [0, 1], or integers
        of type uint8 or uint16.
    file : path, optional
        Where to save the figure: .png, .pdf or .svg.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError, ValueError, OSError
        As `plot_kernels` does.

    Examples
    --------
    >>> pictures = {"before": np.zeros((1, 9, 9)), "after": np.ones((1, 9, 9))}
    >>> figure = plot_results([0.5, 0.2], [0.6, 0.3], pictures)
    >>> [axes.get_title() for axes in figure.axes]
    ['Loss: 0.2000 after 2 epochs', 'before', 'after']
    """
    figure = _new_figure(5.0 + 3.6 * len(pictures), 4.0, file)
    ratios = (5.0, *[3.6] * len(pictures))
    left, *others = figure.subplots(1, 1 + len(pictures), width_ratios=ratios)
    _draw_losses(left, losses, val_losses)
    for axes, (title, picture) in zip(others, pictures.items(), strict=True):
        check_not_masked(title, picture)
        side = min(_DETAIL, *picture.shape[1:])
        top, start = ((size - side) // 2 for size in picture.shape[1:])
        detail = as_floats(title, picture[:, top : top + side, start : start + side])
        _draw_image(axes, title, detail, interpolation="nearest")
    _save(figure, file)
    return figure


def check_plot_file(file: FilePath) -> None:
    """Raise the error that makes it impossible to plot to `file`, before there is work to lose.

    Parameters
    ----------
    file : path
        Where a figure is to be saved.

    Raises
    ------
    ImportError
        Matplotlib is missing.
    ValueError
        The suffix is not .png, .pdf or .svg.

    Examples
    --------
    >>> check_plot_file("loss.txt")
    Traceback (most recent call last):
    ...
    ValueError: the name of a plot must end in one of .png, .pdf, .svg, got loss.txt
    """
    if suffix_of(file) not in _SUFFIXES:
        raise ValueError(
            f"the name of a plot must end in one of {', '.join(_SUFFIXES)}, got {path_of(file)}"
        )
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError('plots need Matplotlib: pip install "convext[plot]"') from None


def _new_figure(width: float, height: float, file: FilePath | None) -> Figure:
    """Return a figure of its own, which leaves the user's backend and open figures alone."""
    check_plot_file("figure.png" if file is None else file)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, file: FilePath | None) -> None:
    if file is None:
        return
    with atomic_write(file) as stream:
        figure.savefig(stream, format=suffix_of(file)[1:], dpi=120)


def _in_range_of(like: Matrix, image: Matrix) -> Matrix:
    """Return an image for the range of `like`: [0, 1] where it is an image, else all of it."""
    low, high = float(like.min()), float(like.max())
    if low >= 0 and high <= 1:
        return image
    return (image - low) / ((high - low) or 1.0)


def _draw_image(axes: Axes, title: str, image: npt.NDArray[Any], **options: Any) -> None:
    """Draw (C, H, W) in [0, 1]: three channels in colour, else the first one in grey."""
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    axes.imshow(np.clip(shown, 0, 1), cmap="gray", vmin=0, vmax=1, **options)
    axes.set_title(title)
    axes.set_axis_off()


def _draw_residual(axes: Axes, residual: Matrix) -> None:
    """Draw the channel mean of the residual; the colours span all but a thousandth of it."""
    mean = residual.mean(axis=0)
    limit = float(np.quantile(np.abs(mean), 0.999)) or 1.0
    drawn = axes.imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
    error = math.sqrt(float(np.mean(residual**2)))
    axes.set_title(f"predicted - after (root mean square {error:.3g})")
    axes.set_axis_off()


def _draw_losses(axes: Axes, given: Sequence[float], val_losses: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    losses = as_float64(as_numeric_array("losses", given))
    check_not_masked("val_losses", val_losses)
    epochs = np.arange(1, len(losses) + 1)
    axes.plot(epochs, losses, marker="o" if len(losses) <= 30 else None, markersize=4)
    count = "1 epoch" if len(losses) == 1 else f"{len(losses)} epochs"
    axes.set_title(f"Loss: {format_loss(float(losses[-1]))} after {count}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("average loss")
    axes.set_xlim(0.5, len(losses) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if losses.min() > 0 and losses.max() > 10 * losses.min():
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    if len(val_losses):
        axes.lines[0].set_label("training")
        axes.plot(epochs, val_losses, label="validation")
        axes.legend()


class _Grid:
    """Kernels laid out in rows: each is a strip of its channels, 1 wide and `tile_height` high."""

    def __init__(self, kernels: npt.ArrayLike) -> None:
        array = as_numeric_array("kernels", kernels)
        check_dimensions("kernels", array.shape, {4: "(num_kernels, C, kh, kw)"})
        self.title = _title(array.shape)
        self.kernels = array[:_MOST_KERNELS, :_MOST_CHANNELS].astype(np.float64)
        finite = np.isfinite(self.kernels)
        self.largest = float(np.max(np.abs(self.kernels), where=finite, initial=0.0)) or 1.0
        # Very long kernels are drawn less long than they are.
        height, width = self.kernels.shape[2:]
        self.tile_height = min(max(height / width, 0.2), 5.0)
        self._lay_out(_LARGEST_KERNEL_GAP)
        self._lay_out(min(_KERNEL_GAP / self.scale, _LARGEST_KERNEL_GAP))

    def _lay_out(self, gap: float) -> None:
        count, channels, _, width = self.kernels.shape
        self.gap = gap
        self.strip = (channels + (channels - 1) * _CHANNEL_GAP + gap, self.tile_height + gap)
        # The number of columns that makes the whole nearly square.
        columns = round(math.sqrt(count * self.strip[1] / self.strip[0]))
        self.columns = min(max(columns, 1), count)
        self.width = self.columns * self.strip[0] - gap
        self.height = math.ceil(count / self.columns) * self.strip[1] - gap
        self.scale = min(_CELL * width, _PANEL / self.width, _PANEL / self.height)

    @property
    def inches(self) -> tuple[float, float]:
        """Width and height of a figure with the grid, its title and its colour bar."""
        return max(self.width * self.scale, 2.0) + 1.2, max(self.height * self.scale, 2.0) + 0.7

    def draw(self, axes: Axes) -> None:
        """Draw the grid with its colour bar."""
        for number, kernel in enumerate(self.kernels):
            row, column = divmod(number, self.columns)
            left, top = column * self.strip[0], row * self.strip[1]
            if len(self.kernels) > 1:
                label = f"{number + 1}"
                axes.text(left, top - 0.1 * self.gap, label, va="bottom", fontsize=8, color="0.3")
            for channel, weights in enumerate(kernel):
                image = self._draw_tile(axes, weights, left + channel * (1 + _CHANNEL_GAP), top)
        axes.figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
        axes.set_title(self.title)
        axes.set(xlim=(0, self.width), ylim=(self.height, -self.gap), aspect="equal")
        axes.set_axis_off()

    def _draw_tile(
        self, axes: Axes, weights: npt.NDArray[np.float64], left: float, top: float
    ) -> AxesImage:
        rows, columns = weights.shape
        if self.scale / columns >= _CELL_WITH_VALUE:
            for (row, column), weight in np.ndenumerate(weights):
                x = left + (column + 0.5) / columns
                y = top + (row + 0.5) / rows * self.tile_height
                self._write_value(axes, float(weight), x, y)
        return axes.imshow(
            weights,
            cmap="RdBu_r",
            vmin=-self.largest,
            vmax=self.largest,
            extent=(left, left + 1, top + self.tile_height, top),
            interpolation="nearest",
        )

    def _write_value(self, axes: Axes, weight: float, x: float, y: float) -> None:
        decimals = 3 if self.largest < 0.1 else 2
        text = f"{weight:.{decimals}f}" if 0.01 <= self.largest < 100 else f"{weight:.1g}"
        colour = "white" if abs(weight) > 0.7 * self.largest else "black"
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)


def _title(shape: tuple[int, ...]) -> str:
    count, channels, height, width = shape
    title = f"{count} kernel{'s' if count > 1 else ''} of {channels}x{height}x{width}"
    if count > _MOST_KERNELS:
        title += f", the first {_MOST_KERNELS}"
    if channels > _MOST_CHANNELS:
        title += f", {_MOST_CHANNELS} channels of each"
    return title
