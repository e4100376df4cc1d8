"""Networks that make images better: applied to an image, and trained on two folders of images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._support.atomic_files import FilePath, path_of
from ._support.checks import check_not_masked, integer, shown
from ._support.interruption import save_anywhere, telling, unused_name
from ._support.messages import say
from ._support.ranks import Ranks, together
from .image.images import luminance, psnr, replace_luminance
from .image.pairs import ImagePairs, PatchBatches
from .image.pictures import Picture, as_picture, strips_of
from .nn.checkpoint import ModelCheckpoint
from .nn.layers import Activation, Conv2D
from .nn.learning import Loss
from .nn.models import Sequential, load_model
from .nn.optimizers import Adam
from .schedules import cosine_decay
from .train.callbacks import History
from .train.checkpoint import DEFAULT_EVERY, beside, files_of

Image = npt.NDArray[Any]

# Of the patches, this share is kept to find the best model with.
VALIDATION_SHARE = 0.1


def enlarge(image: Image, scale: int) -> Image:
    """Return an image `scale` times as large, by bicubic interpolation.

    Parameters
    ----------
    image : numpy.ndarray, (C, H, W)
        Floats in [0, 1], or integers of type uint8 or uint16.
    scale : int

    Returns
    -------
    numpy.ndarray, (C, scale * H, scale * W)
        float64; with a scale of 1, `image` itself.

    Examples
    --------
    >>> enlarge(np.ones((1, 2, 3)), 2).shape
    (1, 4, 6)
    """
    check_not_masked("image", image)
    scale = integer("scale", scale, minimum=1)
    if scale == 1:
        return image
    picture = as_picture("image", image)
    # Pillow's sizes are C integers.
    if scale * max(picture.shape[1:]) >= 2**31:
        raise ValueError(f"scale is too large for an image of {picture.shape[1:]}: {scale}")
    return _enlarged(picture, scale, 0, scale * picture.shape[1])


def _enlarged(picture: Picture, scale: int, begin: int, end: int) -> Image:
    """Return rows of an enlarged image."""
    if scale == 1:
        return picture.rows(begin, end)
    from PIL import Image as pillow  # noqa: N813

    # Each row depends on two above and two below.
    first, last = max(0, begin // scale - 3), end // scale + 4
    width = picture.shape[2]
    box = 0, begin / scale - first, width, end / scale - first
    size, method = (width * scale, end - begin), pillow.Resampling.BICUBIC
    channels = [
        np.asarray(pillow.fromarray(channel.astype(np.float32)).resize(size, method, box))
        for channel in picture.rows(first, last)
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
        Floats in [0, 1], or integers of type uint8 or uint16.

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
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {shown(model)} ({type(model).__name__})")
    picture = as_picture("image", image)
    result = np.empty(picture.shape)
    for begin, rows in enhanced_strips(model, picture):
        result[:, begin : begin + rows.shape[1]] = rows
    return result


def enhanced_strips(
    model: Sequential, picture: Picture, scale: int = 1
) -> Iterator[tuple[int, Image]]:
    """Yield what a model makes of an image, enlarged first, in strips of rows from above to below.

    A strip is predicted from more rows than it has, those that the layers look at, so that it is
    what it would be in the whole image.
    """
    channels, height, width = picture.shape
    height, width = scale * height, scale * width
    seen = 1 if model.layers[-1].filters == 1 else channels
    # As for an image of any size that the layers fit, which one without its border need not have.
    extents = np.sum([layer.extents for layer in model.layers], axis=0)
    sides = model.margins((seen, height + int(extents[0]), width + int(extents[1])))
    if np.min(sides) < 0:
        raise ValueError("the model makes images larger")
    (top, bottom), across = sides
    reach = sum(layer.extents[0] - 1 for layer in model.layers)
    for begin, end in strips_of(height, channels * width, least=8 * reach):
        # Rows of the image with its border, which begins at -top.
        first, last = max(begin - reach, 0), min(end + reach, height + top + bottom)
        inside = max(first - top, 0), min(last - top, height)
        image = _enlarged(picture, scale, *inside)
        values = luminance(image) if seen < channels else image
        down = inside[0] - (first - top), last - top - inside[1]
        result = _predict(model, np.pad(values, ((0, 0), down, across), mode="edge"))
        kept = slice(begin - first, end - first)
        enhanced = result[:, kept].astype(np.float64)
        rows = slice(begin - inside[0], end - inside[0])
        if enhanced.shape != values[:, rows].shape:
            raise ValueError(f"the model makes {len(result)} channels of {len(values)}")
        if seen < channels:
            enhanced = replace_luminance(image[:, rows], enhanced)
        yield begin, enhanced


def _predict(model: Sequential, image: Image) -> Image:
    if model.data_format == "channels_last":
        return np.moveaxis(model.predict(np.moveaxis(image, 0, -1)), -1, 0)
    return model.predict(image)


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
    max_pixels: int | None = None,
    checkpoint: FilePath | None = None,
    checkpoint_every: int | str = DEFAULT_EVERY,
    resume: bool = False,
    comm: Any = None,
) -> Sequential:
    """Train a network that turns the images in one folder into those in another; save the best.

    Images are read when they are needed, so that the folders may be larger than the memory.

    Parameters
    ----------
    before, after : path
        Folders of images of the same sizes, and of the same names but for the suffix.
    layers : sequence of (int, int)
        The filters and the size of the kernels of each layer. The last one has one filter, for
        luminance, or three, for colours.
    out : path
        Where to save the model: after each epoch that is the best so far, measured on a tenth of
        the patches, fewer where they would take more than 256 MiB, which it is not trained on.
        Where there is such a file, the model is in one named after it until the training has
        ended, and with a checkpoint in one named after that, such as run-best.npz.
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
    max_pixels : int, optional
        The largest image to read; by default Pillow's limit, 178,956,970 pixels.
    checkpoint, checkpoint_every, resume, comm
        As for `train_model`.

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
    with together(comm, "train_on_folders") as ranks:
        pairs = ImagePairs(before, after, channels, max_pixels)
        made = [Conv2D(k, size, activation=activation) for k, size in layers[:-1]]
        made.append(Conv2D(channels, layers[-1][1]))
        model = Sequential(made, residual=residual, input_channels=channels, seed=seed)
        model.compile(Adam(cosine_decay(learning_rate, epochs)), loss)
        (top, bottom), (left, right) = model.margins((channels, patch, patch))
        inner = slice(top, patch - bottom), slice(left, patch - right)
        batches = PatchBatches(pairs, patch, stride, batch_size, inner, VALIDATION_SHARE)
        verbose = verbose and ranks.first
        if verbose:
            model.summary()
            size = f"{patch}x{patch}"
            say(
                "{images} images, {patches} patches of {size}",
                images=len(pairs.files),
                patches=batches.total,
                size=size,
            )
        options: dict[str, Any] = {
            "epochs": epochs, "verbose": verbose, "num_threads": num_threads,
            "checkpoint": checkpoint, "checkpoint_every": checkpoint_every, "resume": resume,
        }  # fmt: skip
        model, history, best = _fit_and_save(model, batches, out, ranks, **options)
        if ranks.first:
            _show(model, pairs, history, best, out, plot, verbose)
        return model


def _fit_and_save(
    model: Sequential,
    batches: PatchBatches,
    out: FilePath,
    ranks: Ranks,
    checkpoint: FilePath | None,
    **options: Any,
) -> tuple[Sequential, History, ModelCheckpoint]:
    """Return the best model of a training, which is in `out` then, and how the training went."""
    # Only a whole training may replace a file; one that goes on finds its best model again.
    kept = unused_name(out) if checkpoint is None else beside(checkpoint, "best")
    if checkpoint is not None:
        goes_on = options["resume"] and any(map(os.path.exists, files_of(checkpoint)))
        ranks.once(lambda: _check_kept(kept, goes_on))
    options |= {"checkpoint": checkpoint, "comm": ranks}
    braces = str.maketrans({"{": "{{", "}": "}}"})
    best = ModelCheckpoint(
        kept.translate(braces), save_best_only=True, initial_value_threshold=math.inf
    )
    try:
        validation = batches.validation()
        history = model.fit(batches, callbacks=[best], validation_data=validation, **options)
    except KeyboardInterrupt as stop:
        stop.args = (_where(best, kept) or "no epoch has ended, there is nothing to save",)
        raise
    except (MemoryError, OSError) as error:
        place = _where(best, kept)
        # A model that could not be saved is better than the one there.
        if isinstance(error, OSError) and error.filename == kept:
            place = f"the best model so far is in {save_anywhere(model.save, kept)[0]}"
        if place is None:
            raise
        raise telling(error, place) from error
    return ranks.once(lambda: _best(best, kept, out, checkpoint is None)), history, best


def _check_kept(kept: str, goes_on: bool) -> None:
    """Find out before a training whether the best model so far is there, or another file."""
    if os.path.exists(kept):
        load_model(kept)  # no other file is replaced
    elif goes_on:
        raise FileNotFoundError(
            f"{kept}, the best model so far of the training that is to go on, does not exist: "
            "begin anew, without resume"
        )


def _best(best: ModelCheckpoint, kept: str, out: FilePath, removing: bool) -> Sequential:
    """Return the best model, which goes from where it was kept to its file."""
    model = load_model(kept)
    if kept != path_of(out):
        try:
            model.save(out)
        except OSError as error:
            raise telling(error, _where(best, kept) or "") from error
        if removing:
            os.remove(kept)
    return model


def _where(best: ModelCheckpoint, file: str) -> str | None:
    """Return what to say of the best model so far, if there is one."""
    if not best.best_epoch:
        return None
    return f"the best model so far, of epoch {best.best_epoch}, is in {file}"


def _show(
    model: Sequential,
    pairs: ImagePairs,
    history: History,
    best: ModelCheckpoint,
    out: FilePath,
    plot: FilePath | None,
    verbose: bool,
) -> None:
    """Say, and draw, what a model that was trained makes of the first image."""
    if verbose:
        say(
            "Best: epoch {epoch}, validation loss {loss}. Model: {file}",
            epoch=best.best_epoch,
            loss=f"{best.best_loss:.4g}",
            file=path_of(out),
        )
    image, target = pairs.load(0)
    result = np.clip(enhance(model, image), 0, 1)
    if verbose:
        say(
            "{name}: {before} dB before, {now} dB now",
            name=os.path.basename(pairs.files[0][0]),
            before=f"{psnr(image, target):.2f}",
            now=f"{psnr(result, target):.2f}",
        )
    if plot is not None:
        from .plotting import plot_results

        pictures = {"before": image, "model": result, "after": target}
        plot_results(history.loss, history.val_loss, pictures, plot)
        if verbose:
            say("Plot: {file}", file=path_of(plot))
