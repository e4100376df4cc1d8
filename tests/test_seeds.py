"""Where randomness comes from when no seed is given: NumPy's global generator."""

from __future__ import annotations

import numpy as np
import pytest

import convext

X = np.random.default_rng(0).random((6, 1, 5, 5))
Y = X[:, :, 1:-1, 1:-1]


def written(folder):
    files = folder / "x.npy", folder / "y.npy"
    convext.generate_random_data((2, 1, 4, 4), (2, 1, 3, 3), *files)
    return np.concatenate([np.load(file).ravel() for file in files])


def shuffled_training(kernels):
    options = {"kernels": kernels, "shuffle": True, "verbose": False}
    return convext.train_model(X, Y, 1, (3, 3), 0.1, 3, **options)


def model_weights():
    model = convext.Sequential([convext.Conv2D(1, 3)])
    model.compile("sgd")
    model.fit(X, Y, 2, 3, verbose=0)
    return model.get_weights()[0]


MAKE = {
    "generate_kernels": lambda _: convext.generate_kernels(2, (3, 3), 1),
    "generate_random_data": written,
    "train_model": lambda _: convext.train_model(X, Y, 1, (3, 3), 0.1, 2, verbose=False),
    "train_model, shuffled": lambda _: shuffled_training(np.ones((1, 1, 3, 3))),
    "Sequential": lambda _: model_weights(),
}


@pytest.fixture
def restored_global_state():
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.mark.usefixtures("restored_global_state")
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_numpys_global_seed_makes_what_has_no_seed_repeatable(make, tmp_path):
    np.random.seed(7)
    first, second = make(tmp_path), make(tmp_path)
    np.random.seed(7)
    again = make(tmp_path)
    np.random.seed(8)
    other = make(tmp_path)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.usefixtures("restored_global_state")
def test_what_has_a_seed_leaves_the_global_generator_alone(tmp_path):
    np.random.seed(1)
    convext.generate_kernels(1, (2, 2), 1, seed=3)
    convext.generate_random_data(
        (1, 1, 2, 2), (1, 1, 1, 1), tmp_path / "x.npy", tmp_path / "y.npy", seed=4
    )
    options = {"seed": 1, "shuffle": True, "verbose": False}
    convext.train_model(X, Y, 1, (3, 3), 0.1, 2, **options)
    model = convext.Sequential([convext.Conv2D(1, 3)], input_channels=1, seed=2)
    model.compile()
    model.fit(X, Y, 2, 2, verbose=0)
    model.save(tmp_path / "model.npz")
    convext.load_model(tmp_path / "model.npz")
    drawn = np.random.random()
    np.random.seed(1)
    assert drawn == np.random.random()
