"""A network that learns from batches: how it is compiled, and its steps."""

from __future__ import annotations

import copy
import math
import sys
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .._support.checks import integer
from .._support.messages import format_loss, print_line
from .._support.ranks import ALONE, Ranks
from .._support.sharing import changing, reading
from ..config import resolve_num_threads
from ..train._optimizers import Update
from ..train._steps import LOSSES, Step
from ..train.checkpoint import put_array
from ..train.shared_steps import run_step
from . import optimizers
from .batches import (
    NAMES,
    ArrayBatches,
    Batches,
    Chosen,
    Source,
    make_samples,
    source_of,
    where_not_finite,
)
from .network import Network

Loss: TypeAlias = Literal["mse", "mae", "mean_squared_error", "mean_absolute_error"]
# What `fit` takes as x.
Images: TypeAlias = npt.ArrayLike | Batches

# Steps that keep their memory, for batches of different shapes.
NUM_STEPS = 4


def means(results: Iterable[tuple[dict[str, float], int]]) -> dict[str, float]:
    """Return losses and metrics of samples, from those of parts of them and the parts' sizes."""
    sums: dict[str, float] = {}
    total = 0
    for values, count in results:
        total += count
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * count
    return {name: value / total for name, value in sums.items()}


class Learner(Network):
    """A network that can be compiled, and learn from a batch; see `Sequential`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stop_training = False
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Loss = "mse"
        self._metrics: tuple[Loss, ...] = ()
        self._update: Update | None = None
        self._steps: OrderedDict[object, Step] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        with self._guard.reading("a copy"):
            state = vars(self).copy()
            del state["_steps"]
            # Their values now: the caller copies what is returned here later on.
            state["_update"] = self._moments()
            for name in ("_weights", "_generator", "_update", "optimizer"):
                state[name] = copy.deepcopy(state[name])
            return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What is trained must be writable, whatever memory it was read from.
        own = {"_weights": np.array(state["_weights"]), "_update": None}
        vars(self).update(state, **own, _steps=OrderedDict())
        if self._channels is not None:
            self._show_weights(self._channels)
        self._put_moments(state["_update"])

    @changing
    def compile(
        self,
        optimizer: optimizers.Optimizer | str = "adam",
        loss: Loss = "mse",
        metrics: Iterable[Loss] | None = None,
    ) -> None:
        """Choose how the model is trained; what the optimizer had gathered is forgotten.

        Parameters
        ----------
        optimizer : SGD, Adam, "sgd" or "adam", default "adam"
            How the weights follow the gradient.
        loss : "mse" or "mae", default "mse"
            What is made small: the mean of the squares, or of the absolute values, of
            ``prediction - y``; also "mean_squared_error" and "mean_absolute_error".
        metrics : list of str, optional
            Which of these to measure as well, in `fit` and `evaluate`; as in Keras, the weights of
            samples do not count in them.

        Examples
        --------
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 3)])
        >>> model.compile(convext.SGD(0.1, momentum=0.9), "mae", metrics=["mse"])
        >>> model.optimizer
        SGD(learning_rate=0.1, momentum=0.9, nesterov=False)
        """
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        if isinstance(metrics, str):
            raise TypeError(f"metrics must be a list of names, got {metrics!r}: put it in a list")
        measured = tuple(metrics or ())
        for metric in measured:
            if not isinstance(metric, str) or metric not in LOSSES:
                raise ValueError(
                    f"metrics can be {', '.join(LOSSES)}, got {metric!r}: for others, give `fit` a "
                    "callback that calls predict"
                )
        vars(self).update(optimizer=optimizers.get_optimizer(optimizer), loss=loss)
        self._metrics = measured
        self._update = None
        self._steps.clear()

    @property
    def metrics_names(self) -> list[str]:
        """The names of the loss and the metrics, as `evaluate` returns them."""
        return ["loss", *self._metrics]

    @reading
    def evaluate(
        self,
        x: Images,
        y: npt.ArrayLike | None = None,
        batch_size: int | None = None,
        verbose: bool | int | str = False,
        sample_weight: npt.ArrayLike | None = None,
        steps: int | None = None,
        return_dict: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Return the loss of the model's predictions, and its metrics.

        Parameters
        ----------
        x, y, batch_size, sample_weight
            As for `fit`: arrays or batches.
        verbose : bool, default False
            Whether to print the result, too.
        steps : int, optional
            How many batches to take, of batches.
        return_dict : bool, default False
            Whether to return a dictionary by the names of the loss and the metrics.
        num_threads : int, optional
            Default: `get_num_threads`.

        Returns
        -------
        float, or list of float, or dict of str to float
            The loss; a list of it and the metrics where `compile` was given some. NaN where the
            data have NaN or infinite values.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> layer = convext.Conv2D(1, 1, kernel_initializer="zeros")
        >>> model = convext.Sequential([layer])
        >>> model.evaluate(np.ones((2, 1, 4, 4)), np.full((2, 1, 4, 4), 3))
        9.0
        """
        threads = resolve_num_threads(num_threads)
        how = (sample_weight, batch_size, (steps, "steps"))
        batches = source_of(self._pair, self._generator, x, y, *how)
        if isinstance(batches, ArrayBatches):
            batches.place(self.dtype.itemsize, None)
        values = self._test(batches, threads)
        if verbose and verbose != "auto":
            print_line(", ".join(f"{name}: {format_loss(v)}" for name, v in values.items()))
        return _as_asked(values, return_dict)

    @changing
    def train_on_batch(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        return_dict: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Take one step on a batch; return the loss, and the metrics, before it.

        The learning rate must be a number: a function needs to know the epoch, which `fit` counts.
        Parameters and what is returned are as for `evaluate`; unlike in Keras the metrics are
        those of this batch alone.

        Examples
        --------
        >>> import numpy as np
        >>> import convext
        >>> model = convext.Sequential([convext.Conv2D(1, 1, kernel_initializer="zeros")])
        >>> model.compile("sgd")
        >>> x, y = np.ones((2, 1, 4, 4)), np.full((2, 1, 4, 4), 3)
        >>> model.train_on_batch(x, y), round(model.test_on_batch(x, y), 4)
        (9.0, 8.2944)
        """
        threads = resolve_num_threads(num_threads)
        rate = self._compiled().learning_rate
        if callable(rate):
            raise ValueError(
                "learning_rate is a function of the epoch, which train_on_batch does not know: set "
                "optimizer.learning_rate to a number"
            )
        samples = make_samples(self._pair, NAMES, x, y, sample_weight)
        self._freeze()
        batch = Chosen(samples, np.arange(len(samples.inputs)), len(samples.inputs))
        return _as_asked(self._take(batch, threads, "in train_on_batch", rate), return_dict)

    def test_on_batch(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        return_dict: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Return what `evaluate` does for one batch."""
        size = sys.maxsize
        return self.evaluate(x, y, size, False, sample_weight, None, return_dict, num_threads)

    def _compiled(self) -> optimizers.Optimizer:
        if self.optimizer is None:
            raise ValueError("the model must be compiled before it is trained: see compile")
        return self.optimizer

    def _current_update(self) -> Update:
        if self._update is None:
            sizes = [[variable.size for variable in layer._variables] for layer in self.layers]
            self._update = self._compiled().make_update(sizes, self.dtype)
        return self._update

    def _moments(self) -> dict[str, Any]:
        """Return what the optimizer has gathered, by names."""
        update = self._update
        if update is None:
            return {"iterations": 0}
        moments = {"optimizer_first": update.first, "optimizer_second": update.second}
        found = {name: array for name, array in moments.items() if array is not None}
        return {"iterations": update.iterations, **found}

    def _put_moments(self, state: dict[str, Any]) -> None:
        """Let the optimizer go on from what it had gathered."""
        if state["iterations"]:
            update = self._current_update()
            update.iterations = integer("iterations", state["iterations"], minimum=0)
            for name, array in (("first", update.first), ("second", update.second)):
                if array is not None:
                    put_array(array, state[f"optimizer_{name}"])

    def _freeze(self) -> None:
        """Leave the weights of layers alone that are not trainable."""
        frozen = None
        if not self.trainable:
            flags = [not layer.trainable for layer in self.layers for _ in layer._variables]
            frozen = np.array(flags, np.uint8)
        self._current_update().freeze(frozen)

    def _take(
        self,
        batch: Chosen,
        num_threads: int,
        when: str | None = None,
        rate: float | None = None,
        ranks: Ranks = ALONE,
    ) -> dict[str, float]:
        """Return the loss and the metrics of a batch; with a learning rate, take a step then.

        Where it is said when that is, the loss must be finite. Each rank takes a part of the batch.
        """
        inputs, size = batch.samples.inputs, -(-batch.size // ranks.size)
        key = (inputs.shape[1:], size, num_threads, self.loss, bool(self._metrics))
        with self._guard.lock:
            step = self._steps.pop(key, None)
        if step is None:
            layers = self._layers_for(inputs.shape[1:])
            loss_number, crop = LOSSES[self.loss], self._crop(layers)
            step = Step(
                layers,
                self._weights.size,
                size,
                loss_number,
                crop,
                self.dtype,
                num_threads,
                key[-1],
            )
        loss = run_step(step, ranks, batch.samples, batch.order, rate is not None)
        if when is not None and not math.isfinite(loss):
            raise self._not_finite(loss, batch, when, rate)
        if rate is not None:
            update = self._current_update()
            update.learning_rate = rate
            update.update(self._weights, step.gradient)
        values = {"loss": loss}
        if step.measures is not None:
            values |= {name: float(step.measures[LOSSES[name]]) for name in self._metrics}
        with self._guard.lock:
            self._steps[key] = step
            while len(self._steps) > NUM_STEPS:
                self._steps.popitem(last=False)
        return values

    def _test(
        self, batches: Source, num_threads: int, when: str | None = None, ranks: Ranks = ALONE
    ) -> dict[str, float]:
        """Return the loss and the metrics for batches; in a training these must be finite."""
        return means(
            (self._take(part, num_threads, when, None, ranks), len(part.order))
            for part in batches.epoch(batches.order(), ranks)
        )

    def _not_finite(
        self, loss: float, batch: Chosen, when: str, rate: float | None = None
    ) -> FloatingPointError:
        """Return what to raise where a loss is not finite: whether the data are to blame."""
        kind = "validation " if rate is None else ""
        where = where_not_finite(batch, self.dtype, kind)
        if where is not None:
            cause = f": {where}"
        elif rate is None:
            cause = ": the predictions are too large"
        else:
            cause = (
                f", with learning_rate {rate:g}: lower it, or clip the gradients (clipnorm), or "
                "scale the data"
            )
        return FloatingPointError(f"the {kind}loss is {loss} {when}{cause}")


def _as_asked(values: dict[str, float], return_dict: bool) -> Any:
    """Return losses and metrics as Keras does: a number if it is one alone, a list, a dict."""
    if return_dict:
        return values
    numbers = list(values.values())
    return numbers[0] if len(numbers) == 1 else numbers
