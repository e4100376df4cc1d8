"""What several threads share: the same results as those of one thread, or a clear error."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier, Event

import dask.array
import numpy as np
import pytest

import convext
from convext import enhancement, image, kernels_file, plotting, schedules
from convext.image.pictures import as_picture

# Threads, and calls of each.
how_often = pytest.mark.parametrize(
    ("threads", "calls"),
    [(4, 4), pytest.param(16, 200, marks=pytest.mark.slow)],
    ids=["few", "many"],
)


@pytest.fixture(autouse=True)
def threads_that_change_often():
    """Let Python go from one thread to the next in the middle of anything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_together(count, function, *args, **options):
    """Call a function in so many threads, which begin together; return what each returned."""
    barrier = Barrier(count)

    def begin():
        barrier.wait()
        return function(*args, **options)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(begin) for _ in range(count)]
        return [future.result() for future in futures]


# (input shape, kernel shape, options): by each way that keeps kernels.
FIRST_USES = [
    *(((c, size, size), (c, c, 1, 1), {}) for c, size in [(16, 56), (33, 28), (64, 14)]),
    ((16, 28, 28), (24, 16, 3, 3), {"algorithm": "direct"}),
    ((16, 28, 28), (24, 16, 3, 3), {"algorithm": "winograd"}),
    ((4, 40, 40), (6, 4, 9, 9), {"algorithm": "fft"}),
    ((1, 64, 64), (1, 1, 7, 7), {}),
]


@pytest.mark.parametrize(("input_shape", "kernel_shape", "options"), FIRST_USES)
def test_threads_may_use_prepared_kernels_for_the_first_time_together(
    input_shape, kernel_shape, options
):
    rng = np.random.default_rng(1)
    images = rng.standard_normal(input_shape, np.float32)
    kernels = rng.standard_normal(kernel_shape, np.float32)
    if kernel_shape[:2] == (1, 1):
        kernels = np.ones_like(kernels)
    expected = convext.conv2d(images, kernels, **options)
    for _ in range(60):
        prepared = convext.prepare_kernels(kernels, **options)
        results = run_together(3, convext.conv2d, images, prepared, num_threads=2)
        assert all(np.array_equal(result, expected) for result in results)


# ---------------------------------------------------------------- every public name

X = np.random.default_rng(2).standard_normal((6, 2, 9, 8))
Y = np.random.default_rng(3).standard_normal((6, 3, 7, 6))
KERNELS = np.random.default_rng(4).standard_normal((3, 2, 3, 3))
PICTURE = np.random.default_rng(5).integers(0, 256, (3, 20, 24)) / 255


def trained_model():
    model = convext.Sequential(
        [convext.Conv2D(4, 2, activation="relu"), convext.Conv2D(3, 2)], input_channels=2, seed=0
    )
    model.compile("sgd")
    return model


def report(loss, model=None):
    return convext.EpochReport(2, loss, 0.1, 0.01, KERNELS, val_loss=loss, model=model)


def fit_a_model_of_its_own():
    model = trained_model()
    losses = model.fit(X, Y, 2, 2, 0).history
    return losses, model.get_weights()


def generated(folder):
    def generate():
        shapes = (3, 1, 4, 4), (3, 2, 3, 3)
        convext.generate_random_data(*shapes, folder / "x.npy", folder / "y.npy", seed=1)
        return convext.load_data(folder / "x.npy", folder / "y.npy")[0].shape

    return generate


def saved_and_loaded(save, load, file):
    save(file)

    def go():
        save(file)
        return load(file)

    return go


def statistics_of(images, targets):
    statistics = convext.PatchStatistics(2, 3, (3, 3), bias=True)
    statistics.update(images, targets)
    return statistics


def sums_of(statistics):
    return [getattr(statistics, n) for n in ("products", "cross_products", "squares", "counts")]


def model_checkpoint(folder):
    checkpoint = convext.ModelCheckpoint(folder / "best.npz")
    model = trained_model()
    return lambda: checkpoint(report(0.5, model))


def early_stopping(_):
    stopping = convext.EarlyStopping(patience=10**6)
    return lambda: (stopping(report(0.5)), stopping.best_loss)


def history(_):
    kept = convext.History()

    def keep():
        nonlocal kept
        if len(kept.epoch) >= 10:  # it grows with each epoch, and may be called for hours
            kept = convext.History()
        kept(report(0.5))

    return keep


def reduce_on_plateau(_):
    schedule = schedules.reduce_on_plateau(0.5, patience=10**6)
    return lambda: (schedule(3), schedule.observe(1.0), schedule(4))


def on_a_model(call):
    """Return an entry: a call on one model, which all threads share."""

    def make(_):
        model = trained_model()
        return lambda: call(model)

    return make


def pure(call):
    """Return an entry: a call on what all threads share."""
    return lambda _: call


def load_models(folder):
    trained_model().save(folder / "model.npz")
    return lambda: convext.load_model(folder / "model.npz").get_weights()


def load_pictures(folder):
    image.save_image(folder / "a.png", PICTURE)
    return lambda: image.load_images(folder)["a.png"]


def with_a_picture(call):
    def make(folder):
        image.save_image(folder / "picture.png", PICTURE)
        return lambda: call(folder / "picture.png")

    return make


def train_on_folders(folder):
    for name in ("before", "after"):
        (folder / name).mkdir()
        image.save_image(folder / name / "a.png", PICTURE)
    folders = [folder / name for name in ("before", "after")]

    def train():
        options = {"patch": 9, "stride": 6, "epochs": 1, "seed": 0, "verbose": False}
        with TemporaryDirectory(dir=folder) as own:
            model = enhancement.train_on_folders(*folders, [(1, 3)], f"{own}/out.npz", **options)
        return model.get_weights()

    return train


def plotted(plot, *args):
    def make(folder):
        plot(*args, file=folder / "first.png")  # fonts are looked for

        def draw():
            with TemporaryDirectory(dir=folder) as own:
                plot(*args, file=f"{own}/plot.png")
                return Path(own, "plot.png").read_bytes()

        return draw

    return make


def diverge():
    error = convext.DivergenceError(
        "inf", kernels=KERNELS, epoch=1, loss=1.0, learning_rate=1.0, stable_learning_rate=0.5
    )
    return lambda: pickle.loads(pickle.dumps(error)).kernels


def in_chunks(array):
    return dask.array.from_array(array, chunks=(2, -1, 5, -1))


def computed(value):
    return value.compute(scheduler="synchronous")


ENHANCER = convext.Sequential([convext.Conv2D(1, 3, seed=1)], input_channels=1)
OPENED = as_picture("image", PICTURE)
PREPARED = convext.prepare_kernels(KERNELS, padding=1)
EXPLANATION = convext.explain("conv2d", X, KERNELS)
STATISTICS = statistics_of(X, Y)

# What a thread calls, again and again, after `make(folder)` made what all threads share.
ENTRIES = {
    "SGD": pure(lambda: (repr(convext.SGD(0.5)), fit_a_model_of_its_own())),
    "Adam": pure(lambda: convext.Adam(0.5).config()),
    "Conv2D": on_a_model(
        lambda model: (model.layers[0].resolve((2, 9, 9)), model.layers[0].kernel)
    ),
    "DivergenceError": lambda _: diverge(),
    "EarlyStopping": early_stopping,
    "EpochReport": pure(lambda: report(0.25).loss),
    "Explanation": pure(lambda: str(EXPLANATION)),
    "History": history,
    "ModelCheckpoint": model_checkpoint,
    "PatchStatistics": pure(lambda: sums_of(statistics_of(X, Y))),
    "PreparedKernels": pure(lambda: (convext.conv2d(X, PREPARED), copy.copy(PREPARED).kernels)),
    "Sequential": pure(fit_a_model_of_its_own),
    "Solution": pure(lambda: STATISTICS.solve().kernels),
    "StopTraining": pure(lambda: str(convext.StopTraining("enough"))),
    "__version__": pure(lambda: convext.__version__),
    "build_model": pure(lambda: convext.build_model(2, (2, 2), seed=3).get_weights()),
    "conv2d": pure(lambda: convext.conv2d(X, KERNELS, padding="same", num_threads=2)),
    "conv2d_backprop": pure(lambda: convext.conv2d_backprop(X, KERNELS, Y, Y[::-1])),
    "conv2d_input_grad": pure(lambda: convext.conv2d_input_grad(Y, KERNELS, X.shape)),
    "conv2d_kernel_grad": pure(lambda: convext.conv2d_kernel_grad(X, Y, (3, 3))),
    "explain": pure(lambda: repr(convext.explain("conv2d", X, KERNELS, padding="same"))),
    "generate_kernels": pure(lambda: convext.generate_kernels(2, (3, 3), 1, seed=4)),
    "generate_random_data": generated,
    "get_config": pure(convext.get_config),
    "get_num_threads": pure(convext.get_num_threads),
    "load_data": generated,
    "load_model": load_models,
    "mse_loss": pure(lambda: convext.mse_loss(Y, Y[::-1])),
    "mse_loss_gradient": pure(lambda: convext.mse_loss_gradient(Y, Y[::-1])),
    "prepare_kernels": pure(lambda: convext.prepare_kernels(KERNELS, X.shape).kernels),
    "set_num_threads": pure(lambda: convext.set_num_threads(2)),
    "show_config": pure(convext.show_config),
    "solve_kernels": pure(lambda: convext.solve_kernels(X, Y, (3, 3), bias=True).kernels),
    "suggest_learning_rate": pure(lambda: convext.suggest_learning_rate(X, (3, 3))),
    "train_model": pure(
        lambda: convext.train_model(X, Y, 3, (3, 3), 0.01, 2, seed=5, verbose=False)
    ),
    "dask.conv2d": pure(lambda: computed(convext.dask.conv2d(in_chunks(X), KERNELS))),
    "dask.predict": on_a_model(
        lambda model: computed(convext.dask.predict(model, in_chunks(X.astype(np.float32))))
    ),
    "dask.solve_kernels": pure(
        lambda: computed(convext.dask.solve_kernels(in_chunks(X), in_chunks(Y), (3, 3))).kernels
    ),
    "enhancement.enhance": on_a_model(lambda _: enhancement.enhance(ENHANCER, PICTURE)),
    "enhancement.enhanced_strips": pure(
        lambda: [strip for _, strip in enhancement.enhanced_strips(ENHANCER, OPENED)]
    ),
    "enhancement.enlarge": pure(lambda: enhancement.enlarge(PICTURE, 2)),
    "enhancement.train_on_folders": train_on_folders,
    "image.extract_patches": pure(lambda: image.extract_patches(PICTURE, 5)),
    "image.image_suffix": pure(lambda: image.image_suffix("a.png")),
    "image.jpeg_steps": with_a_picture(image.jpeg_steps),
    "image.jpeg_tables": with_a_picture(image.jpeg_tables),
    "image.load_image": with_a_picture(image.load_image),
    "image.load_images": load_pictures,
    "image.luminance": pure(lambda: image.luminance(PICTURE)),
    "image.psnr": pure(lambda: image.psnr(PICTURE, PICTURE[::-1])),
    "image.replace_luminance": pure(lambda: image.replace_luminance(PICTURE, PICTURE[:1])),
    "image.save_image": lambda folder: saved_and_loaded(
        lambda file: image.save_image(file, PICTURE), image.load_image, folder / "one.png"
    ),
    "kernels_file.are_numbers": pure(lambda: kernels_file.are_numbers([1, 2.0])),
    "kernels_file.load_kernels": lambda folder: saved_and_loaded(
        lambda file: kernels_file.save_kernels(file, KERNELS, {"seed": 1}),
        lambda file: kernels_file.load_kernels(file)[0],
        folder / "kernels.npz",
    ),
    "kernels_file.save_kernels": lambda folder: saved_and_loaded(
        lambda file: kernels_file.save_kernels(file, KERNELS, {"seed": 1}),
        lambda file: kernels_file.load_kernels(file)[0],
        folder / "kernels.npz",
    ),
    "plotting.check_plot_file": pure(lambda: plotting.check_plot_file("a.png")),
    "plotting.plot_kernels": plotted(plotting.plot_kernels, KERNELS),
    "plotting.plot_results": plotted(
        plotting.plot_results, [1.0, 0.5], [1.0, 0.6], {"before": PICTURE, "after": PICTURE}
    ),
    "plotting.plot_solution": plotted(
        plotting.plot_solution, PICTURE, PICTURE, PICTURE, np.ones((3, 3, 3, 3))
    ),
    "plotting.plot_training": plotted(plotting.plot_training, [1.0, 0.5], KERNELS),
    "schedules.ReduceOnPlateau": reduce_on_plateau,
    "schedules.cosine_decay": pure(lambda: schedules.cosine_decay(0.5, 10)(5)),
    "schedules.exponential_decay": pure(lambda: schedules.exponential_decay(0.5, 0.9)(5)),
    "schedules.from_config": pure(lambda: schedules.from_config(0.5)),
    "schedules.reduce_on_plateau": reduce_on_plateau,
    "schedules.step_decay": pure(lambda: schedules.step_decay(0.5)(50)),
    "schedules.to_config": pure(lambda: schedules.to_config(schedules.step_decay(0.5))),
}

# These belong to one thread at a time: another one may get a RuntimeError.
MAY_REFUSE = {"EarlyStopping", "History", "ModelCheckpoint"}
MAY_REFUSE |= {"schedules.ReduceOnPlateau", "schedules.reduce_on_plateau"}


def test_every_public_name_has_an_entry():
    names = {name for name in convext.__all__ if not inspect.ismodule(getattr(convext, name))}
    for module in (schedules, *(getattr(convext, name) for name in convext._MODULES)):
        for name, value in vars(module).items():
            where = getattr(value, "__module__", "")
            if where.startswith(module.__name__) and not name.startswith("_"):
                names.add(f"{module.__name__.removeprefix('convext.')}.{name}")
    assert names - {"image.FilePath", "schedules.Schedule"} == set(ENTRIES)


def test_every_public_class_says_what_threads_may_do():
    for name in ENTRIES:
        value = schedules if name.startswith("schedules.") else convext
        value = getattr(value, name.removeprefix("schedules."), None)
        if isinstance(value, type):
            assert re.search("Threads may share it|One training at a time", inspect.getdoc(value))


def same(first, second):
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and same([*first.values()], [*second.values()])
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    return first == second


@contextmanager
def refusable():
    """Let the documented error pass."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("cannot begin while .* is under way in another thread", str(error)):
            raise


# Each takes a tenth of a second, in Matplotlib, in one thread at a time.
PLOTS = {name for name in ENTRIES if name.startswith("plotting.plot_")}


@how_often
@pytest.mark.parametrize("name", sorted(set(ENTRIES) - PLOTS))
def test_threads_get_what_one_thread_gets(name, threads, calls, tmp_path, restored_num_threads):
    call = ENTRIES[name](tmp_path)
    expected = call()
    done = []

    def call_often():
        for _ in range(calls):
            with refusable() if name in MAY_REFUSE else nullcontext():
                assert same(call(), expected)
                done.append(name)

    run_together(threads, call_often)
    assert done


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLOTS))
def test_threads_draw_the_same_plots(name, tmp_path):
    test_threads_get_what_one_thread_gets(name, 16, 3, tmp_path, None)


# ---------------------------------------------------------------- one model, several threads

# What another thread, and a callback, may do with a model that is trained; what may be done while
# it predicts: by method. A new method needs a decision.
READING, CHANGING, ALWAYS = "reading", "changing", "always"
METHODS = {
    "add": (CHANGING, lambda model: model.add(convext.Conv2D(1, 1))),
    "build": (ALWAYS, lambda model: model.build(2)),
    "built": (ALWAYS, lambda model: model.built),
    "compile": (CHANGING, lambda model: model.compile("sgd")),
    "copy": (READING, lambda model: copy.deepcopy(model).get_weights()),
    "count_params": (ALWAYS, lambda model: model.count_params()),
    "evaluate": (READING, lambda model: model.evaluate(X, Y)),
    "fit": (CHANGING, lambda model: model.fit(X, Y, verbose=0)),
    "get_weights": (READING, lambda model: model.get_weights()),
    "margins": (ALWAYS, lambda model: model.margins((2, 9, 9))),
    "metrics_names": (ALWAYS, lambda model: model.metrics_names),
    "pickle": (READING, lambda model: pickle.loads(pickle.dumps(model)).get_weights()),
    "predict": (READING, lambda model: model.predict(X)),
    "predict_on_batch": (READING, lambda model: model.predict_on_batch(X)),
    "save": (READING, lambda model: model.save("/dev/null")),
    "set_weights": (CHANGING, lambda model: model.set_weights(trained_model().get_weights())),
    "summary": (ALWAYS, lambda model: model.summary()),
    "test_on_batch": (READING, lambda model: model.test_on_batch(X, Y)),
    "train_on_batch": (CHANGING, lambda model: model.train_on_batch(X, Y)),
    "trainable": (ALWAYS, lambda model: model.trainable),
}
# As errors call them.
NAMES = {
    "copy": "a copy",
    "pickle": "a copy",
    "predict_on_batch": "predict",
    "test_on_batch": "evaluate",
}
# Changes that a callback may make between two epochs.
MAY_CHANGE_WITHIN = {"set_weights"}


def test_every_method_of_a_model_has_an_entry():
    public = {name for name in dir(convext.Sequential) if not name.startswith("_")}
    assert public | {"copy", "pickle"} == set(METHODS)


class Slow:
    """Images, or a callback, that take until `go_on`."""

    def __init__(self):
        self.begun, self.go_on = Event(), Event()

    def __call__(self, _):
        self.begun.set()
        assert self.go_on.wait(60)

    def __array__(self, dtype=None, copy=None):
        self(None)
        return X


UNDER_WAY = {
    "fit, callback": lambda model, slow: model.fit(X, Y, verbose=0, callbacks=[slow]),
    "fit, batches": lambda model, slow: model.fit(lambda _: iter([(slow, Y)]), verbose=0),
    "predict": lambda model, slow: model.predict(slow),
    "evaluate": lambda model, slow: model.evaluate(slow, Y),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("under_way", UNDER_WAY)
def test_what_another_thread_may_do_with_a_model_meanwhile(under_way, method):
    kind, call = METHODS[method]
    model, slow = trained_model(), Slow()
    before = model.predict(X)
    training = under_way.startswith("fit")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(UNDER_WAY[under_way], model, slow)
        assert slow.begun.wait(60)
        try:
            if kind == ALWAYS or (kind == READING and not training):
                call(model)
            else:
                message = f"cannot begin while {under_way.split(',')[0]} is under way in another"
                with pytest.raises(RuntimeError, match=f"^{NAMES.get(method, method)} {message}"):
                    call(model)
        finally:
            slow.go_on.set()
        future.result()
    assert training != np.array_equal(model.predict(X), before)
    if method != "add":
        call(model)  # it is free again


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_what_a_callback_may_do_with_the_model_that_is_trained(method, batches):
    """A callback, and what gives the batches."""
    kind, call = METHODS[method]
    may = kind != CHANGING or method in MAY_CHANGE_WITHIN
    models = [trained_model(), trained_model()]
    called = []

    def within(model):
        called.append(method)
        if may:
            call(model)
        else:
            message = f"^{NAMES.get(method, method)} cannot begin while fit is under way$"
            with pytest.raises(RuntimeError, match=message):
                call(model)
        if method in MAY_CHANGE_WITHIN:
            models[0].set_weights(trained_model().get_weights())

    def give(_):
        yield X, Y
        within(models[1])
        yield X, Y

    if batches:
        models[0].fit(lambda _: iter([(X, Y)] * 2), epochs=2, verbose=0)
        models[1].fit(give, epochs=2, verbose=0)
    else:
        models[0].fit(X, Y, epochs=2, verbose=0, callbacks=[lambda _: None])
        models[1].fit(X, Y, epochs=2, verbose=0, callbacks=[lambda r: within(r.model)])
    assert len(called) == 2
    if method not in MAY_CHANGE_WITHIN:
        assert all(map(np.array_equal, models[1].get_weights(), models[0].get_weights()))


def test_a_callback_may_set_the_weights():
    """Of a model whose epochs are one compiled call, too."""
    for model in (trained_model(), convext.build_model(3, (3, 3), 2, seed=1)):
        first = model.get_weights()
        model.fit(X, Y, verbose=0, callbacks=[lambda r, w=first: r.model.set_weights(w)])
        assert all(map(np.array_equal, model.get_weights(), first))


@how_often
def test_threads_may_predict_and_evaluate_with_one_model(threads, calls):
    model = trained_model()
    expected = model.predict(X), model.evaluate(X, Y, 2), model.evaluate(X[:3], Y[:3], 4)

    def read():
        for _ in range(calls):
            assert np.array_equal(model.predict(X, num_threads=2), expected[0])
            assert model.evaluate(X, Y, 2) == expected[1]
            assert model.evaluate(X[:3], Y[:3], 4, num_threads=2) == expected[2]

    run_together(threads, read)


@how_often
def test_threads_may_build_a_model_together(threads, calls):
    for _ in range(calls):
        layers = [convext.Conv2D(2, 2), convext.Conv2D(1, 3)]
        model = convext.Sequential(layers, seed=4)
        results = run_together(threads, model.predict, X)
        assert all(np.array_equal(result, model.predict(X)) for result in results)
        assert np.array_equal(model.layers[0].kernel, model.get_weights()[0])


@how_often
def test_predictions_never_come_from_weights_that_are_changing(threads, calls):
    """Trainings, one after the other, have the same results whichever thread runs them."""
    model, alone = trained_model(), trained_model()
    trainings, results = [], []

    def train():
        for _ in range(calls):
            with refusable():
                model.fit(X, Y, 2, verbose=0)
                trainings.append(1)

    def read():
        for _ in range(calls):
            with refusable():
                results.append((model.predict(X[0]), model.get_weights()))

    roles = iter([train, read] * threads)
    run_together(threads, lambda: next(roles)())  # noqa: PLW0108
    possible = []
    for number in range(len(trainings) + 1):
        if number > 0:
            alone.fit(X, Y, 2, verbose=0)
        possible.append((alone.predict(X[0]).tobytes(), alone.get_weights()[0].tobytes()))
    assert all(map(np.array_equal, model.get_weights(), alone.get_weights()))
    predictions, weights = map(set, zip(*possible, strict=True))
    for prediction, (kernel, *_) in results:
        assert prediction.tobytes() in predictions
        assert kernel.tobytes() in weights


# ---------------------------------------------------------------- statistics, callbacks, schedules


@how_often
def test_threads_may_add_to_statistics_together(threads, calls):
    """Sums of whole numbers have the same bits in any order."""
    rng = np.random.default_rng(6)
    x, y = rng.integers(-9, 9, (4, 2, 6, 6)), rng.integers(-9, 9, (4, 3, 4, 4))
    shared, alone = statistics_of(x, y), statistics_of(x, y)
    kernels = [KERNELS, np.zeros(3)]
    losses = set()

    def add():
        for i in range(calls):
            sample = i % 4
            shared.update(x[sample], y[sample])
            losses.add(shared.loss(*kernels))
            assert shared.gradient(*kernels)[0].shape == KERNELS.shape
            shared.merge(copy.copy(part))

    part = statistics_of(x[:1], y[:1])
    run_together(threads, add)
    for _ in range(threads):
        for i in range(calls):
            alone.update(x[i % 4], y[i % 4])
            alone.merge(part)
    assert same(sums_of(shared), sums_of(alone))


@how_often
def test_statistics_that_are_merged_with_each_other_do_not_wait_for_ever(threads, calls):
    both = [statistics_of(X, Y), statistics_of(X, Y)]
    turns = iter([both, both[::-1]] * threads)

    def merge():
        one, other = next(turns)
        for _ in range(calls):
            one.merge(other)
            one.products, one.counts = np.zeros_like(one.products), np.zeros_like(one.counts)

    run_together(threads, merge)


@pytest.mark.parametrize("train", ["train_model", "fit"])
@pytest.mark.parametrize("what", ["callback", "schedule"])
def test_what_belongs_to_a_training_is_not_used_by_another_one_meanwhile(what, train):
    slow = Slow()
    stopping = convext.EarlyStopping(3)
    rate = schedules.reduce_on_plateau(0.01)

    def begin(*callbacks):
        given = [stopping, *callbacks] if what == "callback" else callbacks
        learning_rate = 0.01 if what == "callback" else rate
        if train == "fit":
            model = trained_model()
            model.compile(convext.SGD(learning_rate))
            model.fit(X, Y, verbose=0, callbacks=given)
        else:
            convext.train_model(
                X, Y, 3, (3, 3), learning_rate, 1, callbacks=given, verbose=False, seed=0
            )

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(begin, slow)
        assert slow.begun.wait(60)
        name = "EarlyStopping" if what == "callback" else "ReduceOnPlateau"
        message = f"a training with this {name} cannot begin while a training with this {name} is"
        with pytest.raises(RuntimeError, match=f"{message} under way in another thread"):
            begin()
        slow.go_on.set()
        future.result()
    begin()


def test_a_history_that_threads_write_to_has_whole_entries():
    kept = convext.History()
    written = []

    def write():
        for loss in range(200):
            with refusable():
                kept(report(float(loss)))
                written.append(float(loss))

    run_together(8, write)
    assert sorted(kept.loss) == sorted(written)
    assert kept.loss == kept.val_loss


@pytest.mark.openmp
def test_set_num_threads_holds_for_all_threads(restored_num_threads):
    convext.set_num_threads(3)
    assert run_together(4, convext.get_num_threads) == [3] * 4
