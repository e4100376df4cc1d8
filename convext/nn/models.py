"""Networks of convolutions: layers one after the other, trained from pairs of images.

Names, defaults and formulas are Keras's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from .._support.atomic_files import FilePath
from .._support.checks import boolean, integer
from .._support.ranks import together
from .._support.sharing import changing, reading
from ..config import resolve_num_threads
from ..ops.data import DataFormat
from ..ops.shapes import Pair
from ..train.callbacks import Callback, History
from ..train.checkpoint import DEFAULT_EVERY, make_checkpoint
from ..train.hooks import checked_callbacks
from ..train.loop import run_epochs
from . import model_file
from .batches import ArrayBatches, Batch, Batches, GivenBatches, Source, source_of, validation_of
from .fitting import Fit
from .layers import Conv2D
from .learning import Images, Learner


class Sequential(Learner):
    """Convolutions one after the other, from image to image.

    Parameters
    ----------
    layers : iterable of Conv2D, optional
        The layers, in order; more can be added with `add`.
    residual : bool, default False
        Whether the layers compute what is to be added to the input, as in a denoiser. Where the
        output is smaller than the input, its middle is meant.
    input_channels : int, optional
        The channels of the images. Without it, the first images that the model sees tell.
    data_format : "channels_first" or "channels_last", default "channels_first"
        Whether images are (N, C, H, W) or, as in Keras, (N, H, W, C).
    dtype : "float32" or "float64", default "float32"
        In which the model computes; images are converted.
    seed : int, optional
        Makes the first weights and the shuffling repeatable. By default it is drawn from NumPy's
        global generator, which ``numpy.random.seed`` makes repeatable.
    name : str, optional
        What to call the model.

    Attributes
    ----------
    layers : list of Conv2D
    stop_training : bool
        What a callback sets to end the training after the epoch.
    built : bool
        Whether the number of channels is known, and the weights are there.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or value.

    Notes
    -----
    Threads may share it to read it (`predict`, `evaluate`, `save`, ...); while one changes it
    (`fit`, ...), what others begin is a RuntimeError. A copy, by `copy.copy`, `copy.deepcopy` or
    `pickle`, shares nothing with the model, and is trained on with the same bits.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> model = convext.Sequential(
    ...     [convext.Conv2D(8, 3, activation="relu"), convext.Conv2D(1, 3)], seed=0
    ... )
    >>> model.compile(convext.Adam(0.01), "mse")
    >>> x = np.random.default_rng(0).random((32, 1, 16, 16), np.float32)
    >>> history = model.fit(x, x[:, :, 2:-2, 2:-2], epochs=50, verbose=0)
    >>> history.history["loss"][-1] < 0.1 * history.history["loss"][0]
    True
    >>> model.predict(x).shape
    (32, 1, 12, 12)
    """

    def __init__(
        self,
        layers: Iterable[Conv2D] = (),
        *,
        residual: bool = False,
        input_channels: int | None = None,
        data_format: DataFormat = "channels_first",
        dtype: str = "float32",
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            residual=residual, data_format=data_format, dtype=dtype, seed=seed, name=name
        )
        if isinstance(layers, Conv2D):
            raise TypeError(f"layers must be a list of layers, got {layers!r}")
        for layer in layers:
            self.add(layer)
        self._seal()
        if input_channels is not None:
            self.build(input_channels)

    # Keras's own History callback sets a history.
    _settable = ("name", "trainable", "stop_training", "history", "layers")
    _instead = "see compile, or make a new model"

    @changing
    def fit(
        self,
        x: Images,
        y: npt.ArrayLike | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: bool | int | str = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Batch | Batches | None = None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        num_threads: int | None = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        checkpoint: FilePath | None = None,
        checkpoint_every: int | str = DEFAULT_EVERY,
        resume: bool = False,
        max_memory: int | str | None = None,
        comm: Any = None,
    ) -> History:
        """Train the model.

        Parameters
        ----------
        x : array_like or path, (N, C, H, W), or batches
            The images, in any type of real numbers. They may be larger than the memory: .npy files,
            shards such as ``"x-*.npy"``, memory maps, and whatever slices like an array (h5py,
            Zarr, Dask). Or batches, (x, y) or (x, y, sample_weight), of arrays or tensors: an
            object that gives them anew in each epoch, such as a list, PyTorch's DataLoader or
            Keras's Sequence; a function that does so, of the model's random generator if it takes
            an argument; or an iterator, which goes on from epoch to epoch.
        y : array_like, (N, K, OH, OW), optional
            What the model should make of them; not given with batches.
        batch_size : int, default 32
            Samples for a step. The last batch of an epoch may be smaller.
        epochs : int, default 1
            How often to go through the data; the number of the last epoch.
        verbose : bool or "auto", default "auto"
            Print a line for each epoch; on a terminal, a progress bar when there are many.
        callbacks : iterable of callables, optional
            Each is called after each epoch with an `EpochReport`, and may raise `StopTraining`.
            Objects may have methods as in Keras: set_model(model), on_train_begin(logs),
            on_epoch_begin(epoch, logs), on_epoch_end(epoch, logs), on_train_end(logs), epochs
            counted from 0; they may set ``model.stop_training`` or the optimizer's learning rate.
            What else one raises ends the training, and the model has the weights of this epoch.
        validation_split : float, default 0
            Keep this share of the samples, the last ones, to validate the model after each epoch;
            none with `validation_data`.
        validation_data : (x, y), (x, y, sample_weight) or batches, optional
            Samples to validate the model with; batches as for `x`, but in a list only as part of
            an object or a function.
        shuffle : bool, default True
            Take the samples of arrays in a new random order in every epoch.
        initial_epoch : int, default 0
            How many epochs of a training that goes on have been run: it begins with the next.
        steps_per_epoch : int, optional
            The batches of an epoch, at most those that there are; needed for an iterator.
        num_threads : int, optional
            Default: `get_num_threads`. The result has the same bits for any number.
        sample_weight : array_like, (N,) or (N, 1, 1), optional
            What the loss of each sample is multiplied by: the loss is ``mean(sample_weight *
            loss_of_sample)``, as in Keras.
        validation_steps : int, optional
            The batches of `validation_data` that are taken; needed for an iterator.
        validation_batch_size : int, default 32
            The samples of `validation_data` that are taken at a time, of arrays.
        checkpoint, checkpoint_every, resume
            As for `train_model`; layers, optimizer and loss must be the same, too. Batches come
            from an object, or from a function whose only random numbers are those of the generator
            that it is given: of these, only the first of a list is looked at.
        max_memory : int or str, optional
            As for `train_model`: of data that are not in memory, how many bytes may be; half each
            for the samples and for those to validate with.
        comm : mpi4py.MPI.Comm, optional
            As for `train_model`: processes that each take a part of every batch. Batches that are
            given must be the same ones on all; each of them reads the whole.

        Returns
        -------
        History
            The losses and metrics: the attribute ``history`` is a dictionary as in Keras.

        Raises
        ------
        FloatingPointError
            The loss, or that of the validation data, became infinite or NaN. Where values of the
            data are, it says which; the weights stay as they were before.
        TypeError, ValueError
            An argument does not fit.

        Notes
        -----
        The loss that is reported for an epoch is the mean over the predictions made on the way,
        with the weights as they were then. A layer whose ``trainable`` is False keeps its weights.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> model = convext.build_model(2, (2, 2))
        >>> x, y = np.ones((10, 3, 8, 8)), np.ones((10, 2, 7, 7))
        >>> history = model.fit(x, y, batch_size=1, epochs=2, validation_split=0.2, verbose=0)
        >>> sorted(history.history)
        ['learning_rate', 'loss', 'val_loss']
        """
        with together(comm, "fit") as ranks:
            epochs = integer("epochs", epochs, minimum=1)
            initial_epoch = integer("initial_epoch", initial_epoch, minimum=0)
            shuffle = boolean("shuffle", shuffle)
            called = checked_callbacks(callbacks)
            threads = resolve_num_threads(num_threads, ranks)
            how_saved = checkpoint, checkpoint_every, resume
            saved = ranks.attempt(lambda: make_checkpoint(*how_saved) if ranks.first else None)
            self._compiled()
            how = (sample_weight, batch_size, (steps_per_epoch, "steps_per_epoch"), shuffle)
            batches = source_of(self._pair, self._generator, x, y, *how)
            validation: Source | None = None
            if validation_split and validation_data is None:
                if not isinstance(batches, ArrayBatches):
                    raise ValueError("validation_split is for arrays: x is batches")
                batches, validation = batches.split(validation_split)
            size = 32 if validation_batch_size is None else validation_batch_size
            size = integer("validation_batch_size", size, minimum=1)
            if validation_data is not None:
                given = (validation_data, validation_steps, size)
                validation = validation_of(self._pair, self._generator, *given)
            elif validation_steps is not None:
                raise ValueError("validation_steps is for batches: there is no validation_data")
            arrays = [part for part in (batches, validation) if isinstance(part, ArrayBatches)]
            for part in arrays:
                part.place(self.dtype.itemsize, max_memory, len(arrays) * ranks.size)
            if checkpoint is not None:
                for source in (batches, validation):
                    if isinstance(source, GivenBatches):
                        source.check_resumable()
            history = History()
            run = Fit(self, batches, validation, threads, initial_epoch, ranks)
            run_epochs(run, epochs, (history, *called), bool(verbose), initial_epoch, saved, ranks)
            return history

    @reading
    def save(self, filepath: FilePath, checkpoint: dict[str, object] | None = None) -> None:
        """Write the model to one .npz file: its layers, its weights, and where its training is.

        That includes the state of the optimizer and of the random generator: a model that was
        saved and loaded goes on bit for bit as if it had not been. A failure leaves an older file
        as it was.

        Parameters
        ----------
        filepath : path
            The file to write.
        checkpoint : dict, optional
            What a `ModelCheckpoint` notes: how good the model is.

        Raises
        ------
        TypeError
            The learning rate is a function that is not in `convext.schedules`.
        OSError
            The folder does not exist or is not writable, or the disk is full.

        Examples
        --------
        >>> import tempfile
        >>> import convext
        >>> model = convext.build_model(2, (2, 2))
        >>> model.build(3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.npz")
        ...     convext.load_model(f"{folder}/model.npz").summary()
        Sequential, float32
          1  2 of 3x2x2   relu   26
        26 weights
        """
        model_file.write(self, filepath, checkpoint)


def build_model(
    num_kernels: int, kernel_shape: Pair, num_channels: int = 3, **options: Any
) -> Sequential:
    """Return the textbook program's Keras model, compiled: a convolution with bias and ReLU.

    The optimizer is Adam and the loss the mean squared error.

    Parameters
    ----------
    num_kernels : int
        The channels of the output.
    kernel_shape : int or (int, int)
        Height and width of the kernels; one number is both.
    num_channels : int, default 3
        The channels of the input.
    **options
        Of `Sequential`: seed, dtype, data_format.

    Returns
    -------
    Sequential

    Examples
    --------
    >>> import convext
    >>> convext.build_model(2, (2, 2)).summary()
    Sequential, float32
      1  2 of 3x2x2   relu   26
    26 weights
    """
    layer = Conv2D(num_kernels, kernel_shape, activation="relu")
    model = Sequential([layer], input_channels=num_channels, **options)
    model.compile("adam", "mse")
    return model


def load_model(filepath: FilePath) -> Sequential:
    """Read a model that `Sequential.save` wrote. Nothing is ever unpickled.

    Parameters
    ----------
    filepath : path
        The file to read.

    Returns
    -------
    Sequential
        Compiled if it was, and ready to go on with its training.

    Raises
    ------
    OSError
        From the system, unchanged: FileNotFoundError, IsADirectoryError, PermissionError.
    ValueError
        The file is not a model, or is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import convext
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     convext.build_model(2, (2, 2)).save(f"{folder}/model.npz")
    ...     model = convext.load_model(f"{folder}/model.npz")
    >>> model.optimizer
    Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-07)
    """
    return model_file.read(filepath, Sequential)
