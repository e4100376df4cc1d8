"""A warning is shown where a function of the package was called, not inside the package."""

from __future__ import annotations

import numpy as np
import pytest

import convext
from convext import image

FLAT, LAST = np.ones((1, 9, 9)), np.ones((1, 32, 32, 3))


def statistics_of(before, after):
    statistics = convext.PatchStatistics(before.shape[-3], after.shape[-3], 1)
    statistics.update(before, after)
    return statistics


def several_pages():
    pillow = pytest.importorskip("PIL.Image")
    pages = [pillow.new("L", (3, 3)) for _ in range(2)]
    pages[0].save("pages.tif", save_all=True, append_images=pages[1:])
    image.load_image("pages.tif")


def a_folder_with_others():
    image.save_image("a.png", FLAT)
    open("a.psd", "w").close()
    image.load_images(".")


def earlier_model():
    model = convext.Sequential([convext.Conv2D(1, 1)], input_channels=1)
    model.compile("sgd")
    for _ in range(2):
        best = convext.ModelCheckpoint("model.npz", save_best_only=True, monitor="loss")
        model.fit(FLAT[np.newaxis], FLAT[np.newaxis], verbose=0, callbacks=[best])


WARNED = {
    "rank of solve_kernels": lambda: convext.solve_kernels(FLAT, FLAT, 3),
    "rank of solve": lambda: statistics_of(np.ones((2, 9, 9)), FLAT).solve(),
    "underflow": lambda: statistics_of(FLAT * 1e-200, FLAT),
    "channels of solve_kernels": lambda: convext.solve_kernels(LAST, LAST, 1, l2=1.0),
    "channels of update": lambda: statistics_of(LAST, LAST),
    "channels of train_model": lambda: convext.train_model(LAST, LAST, 32, 1, 1e-3, 1, verbose=0),
    "pages": several_pages,
    "bits": lambda: image.save_image("a.jpg", np.ones((1, 9, 9), np.uint16)),
    "folder": a_folder_with_others,
    "checkpoint": earlier_model,
}


@pytest.mark.parametrize("kind", WARNED)
def test_a_warning_is_shown_where_the_function_was_called(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns() as caught:
        WARNED[kind]()
    assert {warning.filename for warning in caught} == {__file__}
