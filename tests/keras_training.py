"""Trains a network with Keras, for test_frameworks.py, in a process of its own.

    python keras_training.py TASK.json WEIGHTS_AND_DATA.npz RESULT.npz

Arrays are channels-first, as in convext.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(task_file, data_file, result_file):
    import keras

    with open(task_file) as stream:
        task = json.load(stream)
    data = np.load(data_file)
    x, y = (np.moveaxis(data[name], 1, -1) for name in ("x", "y"))
    model = keras.Sequential([keras.layers.Conv2D(**layer) for layer in task["layers"]])
    model.build((None, *x.shape[1:]))
    weights = [data[f"weight_{i}"] for i in range(len(model.get_weights()))]
    model.set_weights([w.transpose(2, 3, 1, 0) if w.ndim == 4 else w for w in weights])
    optimizer = getattr(keras.optimizers, task["optimizer"])(**task["options"])
    model.compile(optimizer=optimizer, loss=task["loss"])
    history = model.fit(x, y, task["batch_size"], task["epochs"], shuffle=False, verbose=0)
    trained = [w.transpose(3, 2, 0, 1) if w.ndim == 4 else w for w in model.get_weights()]
    np.savez(
        result_file,
        loss=history.history["loss"],
        predicted=np.moveaxis(model.predict(x, verbose=0), -1, 1),
        **{f"weight_{i}": w for i, w in enumerate(trained)},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
