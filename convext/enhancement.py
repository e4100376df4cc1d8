"""Networks that make images better: applied to an image, and trained on two folders of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._checks import check_not_masked
from .activations import Activation
from .callbacks import ModelCheckpoint
from .files import FilePath
from .image import extract_patches, load_images, luminance, psnr, replace_luminance
from .layers import Conv2D
from .messages import say
from .models import Loss, Sequential, load_model
from .optimizers import Adam
from .schedules import cosine_decay

Image = npt.NDArray[np.float64]

# Of the patches, this share is kept to find the best model with.
VALIDATION_SHARE = 0.1


def enlarge(image: Image, scale: int) -> Image:
    """Return an image so many times as large, by bicubic interpolation.

    Parameters
    ----------
    image : numpy.ndarray, (C, H, W)
    scale : int

    Returns
    -------
    numpy.ndarray, (C, scale * H, scale * W)

    Examples
    --------
    >>> enlarge(np.ones((1, 2, 3)), 2).shape
    (1, 4, 6)
    """
    check_not_masked("image", image)
    if scale == 1:
        return image
    from PIL import Image as pillow  # noqa: N813

    _, height, width = image.shape
    size = (width * scale, height * scale)
    method = pillow.Resampling.BICUBIC
    channels = [
        np.asarray(pillow.fromarray(channel.astype(np.float32)).resize(size, method))
        for channel in image
    ]
    return np.stack(channels).astype(np.float64)


def enhance(model: Sequential, image: Image) -> Image:
    """Return what a model makes of an image, as large as that.

    Where the layers lose pixels, the border of the image is repeated outwards first. A model of one
    channel changes the luminance of a colour image and leaves its chroma.

    Parameters
    ----------
    model : Sequential
        It takes and gives one channel, or three, and has strides of 1.
    image : numpy.ndarray, (1, H, W) or (3, H, W)

    Returns
    -------
    numpy.ndarray, of the shape of `image`
        float64; values may lie outside [0, 1].

    Raises
    ------
    ValueError
        The channels do not fit, or the result would be larger or smaller than the image.

    Examples
    --------
    >>> import convext
    >>> model = convext.Sequential([convext.Conv2D(1, 5, seed=0)], input_channels=1)
    >>> enhance(model, np.ones((3, 20, 30))).shape
    (3, 20, 30)
    """
    check_not_masked("image", image)
    values = luminance(image) if model.layers[-1].filters == 1 else image
    # As it would be for an image of any size that the layers fit.
    sides = model.margins(values.shape)
    if np.min(sides) < 0:
        raise ValueError("the model makes images larger")
    if model.data_format == "channels_last":
        padded = np.moveaxis(np.pad(values, ((0, 0), *sides), mode="edge"), 0, -1)
        result = np.moveaxis(model.predict(padded), -1, 0)
    else:
        result = model.predict(np.pad(values, ((0, 0), *sides), mode="edge"))
    if result.shape != values.shape:
        raise ValueError(f"the model makes {result.shape} of an image of {values.shape}")
    enhanced = result.astype(np.float64)
    return replace_luminance(image, enhanced) if len(values) < len(image) else enhanced


def train_on_folders(
    before: FilePath,
    after: FilePath,
    layers: Sequence[tuple[int, int]],
    out: FilePath,
    *,
    activation: Activation = "relu",
    residual: bool = False,
    patch: int = 33,
    stride: int = 14,
    epochs: int = 20,
    batch_size: int = 16,
    learning_rate: float = 0.001,
    loss: Loss = "mse",
    seed: int | None = None,
    num_threads: int | None = None,
    plot: FilePath | None = None,
    verbose: bool = True,
) -> Sequential:
    """Train a network that turns the images in one folder into those in another; save the best.

    Parameters
    ----------
    before, after : path
        Folders of images of the same names and sizes.
    layers : sequence of (int, int)
        The filters and the size of the kernels of each layer. The last one has one filter, for
        luminance, or three, for colours.
    out : path
        Where to save the model: after each epoch that is the best so far, measured on a tenth of
        the patches, which it is not trained on.
    activation : str, default "relu"
        Of all layers but the last.
    residual : bool, default False
        Whether to learn what is to be added to the image.
    patch, stride : int
        The size of the patches, and the pixels from one to the next.
    epochs, batch_size, learning_rate, loss, seed, num_threads
        Of the training, by Adam with a learning rate that falls along a cosine.
    plot : path, optional
        Where to draw the losses and what the model makes of an image.
    verbose : bool, default True
        Whether to print the progress.

    Returns
    -------
    Sequential
        The best model.

    Raises
    ------
    ValueError
        The folders do not fit each other, or an argument is out of its range.
    OSError
        A file cannot be read or written.
    """
    channels = layers[-1][0]
    if channels not in (1, 3):
        raise ValueError(f"the last layer must have 1 filter or 3, got {channels}")
    pairs = _load_pairs(before, after, channels)
    made = [Conv2D(k, size, activation=activation) for k, size in layers[:-1]]
    made.append(Conv2D(channels, layers[-1][1]))
    model = Sequential(made, residual=residual, input_channels=channels, seed=seed)
    model.compile(Adam(cosine_decay(learning_rate, epochs)), loss)
    x, y = (
        extract_patches([pair[i].astype(np.float32) for pair in pairs.values()], patch, stride)
        for i in range(2)
    )
    (top, bottom), (left, right) = model.margins(x.shape[1:])
    y = y[:, :, top : patch - bottom, left : patch - right]
    if verbose:
        model.summary()
        say(f"{len(pairs)} images, {len(x)} patches of {patch}x{patch}")
    best = ModelCheckpoint(out, save_best_only=True, initial_value_threshold=math.inf)
    history = model.fit(
        x,
        y,
        batch_size,
        epochs,
        verbose,
        [best],
        validation_split=VALIDATION_SHARE,
        num_threads=num_threads,
    )
    model = load_model(out)
    name, (image, target) = next(iter(pairs.items()))
    result = np.clip(enhance(model, image), 0, 1)
    if verbose:
        say(f"Best: epoch {best.best_epoch}, validation loss {best.best_loss:.4g}. Model: {out}")
        say(f"{name}: {psnr(image, target):.2f} dB before, {psnr(result, target):.2f} dB now")
    if plot is not None:
        from .plotting import plot_results

        pictures = {"before": image, "model": result, "after": target}
        plot_results(history.loss, history.val_loss, pictures, plot)
        if verbose:
            say(f"Plot: {plot}")
    return model


def _load_pairs(before: FilePath, after: FilePath, channels: int) -> dict[str, tuple[Image, Image]]:
    """Return the images before and after, by name, with so many channels."""
    first, second = load_images(before), load_images(after)
    if lone := sorted(first.keys() ^ second.keys()):
        raise ValueError(f"{lone[0]} is in only one of {before} and {after}")
    pairs: dict[str, tuple[Image, Image]] = {}
    for name, image in first.items():
        if image.shape[1:] != second[name].shape[1:]:
            raise ValueError(
                f"{name} has the shape {image.shape} before and {second[name].shape} after"
            )
        pairs[name] = (_with_channels(image, channels), _with_channels(second[name], channels))
    return pairs


def _with_channels(image: Image, channels: int) -> Image:
    if channels == 1:
        return luminance(image)
    return np.broadcast_to(image, (channels, *image.shape[1:])).copy()
