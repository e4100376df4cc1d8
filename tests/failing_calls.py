"""Read and write each kind of file, while one call of the system after the other fails.

Run by test_unlucky.py below the library of failing_files.c. For every call of a kind that an
operation makes, the operation runs once with that call failing, and those after it. It must raise
an OSError with the system's number and the name of the file, leave the old file as it was and no
other, or do what it does without a failure. What is wrong is printed as JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import convext
from convext._support.stored_arrays import open_array
from convext.image.images import load_image, save_image
from convext.image.pairs import ImagePairs
from convext.kernels_file import load_kernels, save_kernels

# How often a call fails; where nothing is said, always. 0: it reads or writes one byte alone.
TIMES = {0: 50, errno.EINTR: 3}
WRITING = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.ESTALE]
READING = [errno.EIO, errno.EACCES, errno.ESTALE]

FOLDER = os.path.realpath(sys.argv[2])
DATA, PACE = f"{FOLDER}/data", float(sys.argv[3])
shim = ctypes.CDLL(None)
shim.fail.argtypes = ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_char_p
rng = np.random.default_rng(int(sys.argv[1]))
x = rng.random((3, 2, 60, 50), np.float32)
y = rng.random((3, 4, 58, 48), np.float32)
statistics = convext.PatchStatistics(2, 4, (3, 3))
statistics.update(x, y)
model = convext.build_model(3, (3, 3), num_channels=2, seed=0)
model.compile("adam")
model.fit(x[:, :, :20, :20], y[:, :3, :18, :18], verbose=0)
image, large = rng.random((3, 90, 100)), rng.random((4, 1, 70, 70))
history = convext.History()
convext.train_model(x, y, 4, (3, 3), 0.01, 2, callbacks=[history], verbose=False)

SAVED = {
    "kernels.npz": lambda file: save_kernels(file, large, {"of": "nobody"}),
    "statistics.npz": statistics.save,
    "model.npz": model.save,
    "grey.png": lambda file: save_image(file, image[:1]),
    "colour.png": lambda file: save_image(file, image, bits=16),
    "image.jpg": lambda file: save_image(file, image),
    "float.tif": lambda file: save_image(file, image.astype("f4"), bits=32),
    "plot.png": history.plot,
    "applied.npy": lambda file: command("apply", f"{DATA}/one.npz", f"{DATA}/x.npy", file),
    "enhanced.png": lambda file: command("enhance", f"{DATA}/srcnn.npz", f"{DATA}/image.png", file),
}


def arrays(**options):
    return lambda *files: [np.array(a) for a in convext.load_data(*files, **options)]


def trained(*files):
    return convext.train_model(*files, 4, (3, 3), 0.01, 2, seed=0, verbose=False)


def of_model(file):
    return [w.copy() for w in convext.load_model(file).get_weights()]


def of_statistics(file):
    return convext.PatchStatistics.load(file).solve().kernels


def of_folders(before, _):
    return ImagePairs(Path(before).parent, Path(before).parent, 3).load(0)


READ = {
    "load_data": (arrays(), f"{DATA}/x.npy", f"{DATA}/y.npy"),
    "load_data of archives": (arrays(), f"{DATA}/x.npz", f"{DATA}/y.npz"),
    "load_data, mapped": (arrays(mmap=True), f"{DATA}/x.npy", f"{DATA}/y.npy"),
    "an array read in parts": (
        lambda file: [open_array(file, "x")[begin : begin + 1] for begin in range(3)],
        f"{DATA}/x.npy",
    ),
    "train_model": (trained, f"{DATA}/x.npy", f"{DATA}/y.npz"),
    "load_kernels": (lambda file: load_kernels(file)[0], f"{DATA}/kernels.npz"),
    "load_model": (of_model, f"{DATA}/model.npz"),
    "statistics": (of_statistics, f"{DATA}/statistics.npz"),
    "image pairs": (of_folders, f"{DATA}/pairs/a.png", f"{DATA}/pairs/a.png"),
    **{
        f"load_image of {name}": (load_image, f"{DATA}/{name}")
        for name in [
            "image.png", "turned.jpg", "float.tif", "packed.tif", "16.ppm", "two.gif", "8.webp"
        ]
    },
}  # fmt: skip


def command(*arguments):
    """Run a command as the command line does, but let its errors through."""
    from convext.cli.commands import make_parser

    options = make_parser(arguments).parse_args(arguments)
    options.run(options)


def make_files():
    from PIL import Image

    os.makedirs(f"{DATA}/pairs")
    np.save(f"{DATA}/x.npy", x)
    np.save(f"{DATA}/y.npy", y)
    np.savez(f"{DATA}/x.npz", x=x)
    np.savez_compressed(f"{DATA}/y.npz", y=y)
    save_kernels(f"{DATA}/kernels.npz", large, {"a": "b"})
    save_kernels(f"{DATA}/one.npz", np.ones((20, 2, 3, 3)), {})
    model.save(f"{DATA}/model.npz")
    convext.Sequential([convext.Conv2D(1, 3, seed=0)], input_channels=1).save(f"{DATA}/srcnn.npz")
    statistics.save(f"{DATA}/statistics.npz")
    pixels = Image.fromarray(np.uint8(255 * np.moveaxis(image, 0, -1)))
    exif = Image.Exif()
    exif[274] = 6
    pixels.save(f"{DATA}/image.png")
    pixels.save(f"{DATA}/pairs/a.png")
    pixels.save(f"{DATA}/turned.jpg", exif=exif)
    pixels.save(f"{DATA}/packed.tif", compression="tiff_lzw")
    pixels.save(f"{DATA}/8.webp")
    pixels.save(f"{DATA}/two.gif", save_all=True, append_images=[pixels.rotate(90)])
    Path(f"{DATA}/16.ppm").write_bytes(b"P6 90 100 65535\n" + rng.bytes(90 * 100 * 6))
    save_image(f"{DATA}/float.tif", image.astype("f4"), bits=32)


def outcomes(call, error, below, function, *arguments, before=bool):
    """Yield how many calls pass before the failure, and what came of it, while it comes to that."""
    after, fired = 0, True
    times = TIMES.get(error, 1 << 30)
    while fired:
        before()
        shim.fail(call.encode(), error, after, times, os.path.realpath(below).encode())
        try:
            result, raised = function(*arguments), None
        except Exception as problem:
            result, raised = None, problem
        fired = shim.fired()
        shim.fail(b"", 0, 0, 0, b"")
        if fired:
            yield after, result, raised
        after += 1 + int(after / PACE)  # of many calls, those at the begin one by one


def is_named(raised, error, files):
    names = {os.path.realpath(file) for file in files}
    return (
        isinstance(raised, OSError)
        and raised.errno == error
        and raised.filename is not None
        and os.path.realpath(raised.filename) in names
    )


def check_writing(name, save, call, error, wrong):
    """Let calls fail while a file is replaced; return how often."""
    folder, count = tempfile.mkdtemp(dir=FOLDER), 0
    file = Path(folder, name)

    def before():
        for left in os.listdir(folder):
            os.remove(os.path.join(folder, left))
        file.write_bytes(b"old")

    save(str(file))
    whole = file.read_bytes()
    for after, _, raised in outcomes(call, error, folder, save, str(file), before=before):
        count += 1
        contents = file.read_bytes()
        if raised is None:
            good = contents == whole
        else:
            good = contents == b"old" and error > 0 and is_named(raised, error, [file])
        if not good or os.listdir(folder) != [name]:
            wrong.append([name, call, error, after, repr(raised), os.listdir(folder)])
    shutil.rmtree(folder)
    return count


def check_reading(name, read, files, call, error, wrong):
    """Let calls fail while files are read; return how often."""
    expected, count = read(*files), 0
    for after, result, raised in outcomes(call, error, DATA, read, *files):
        count += 1
        if raised is None:
            good = all(map(np.array_equal, result, expected))
        else:
            good = error > 0 and is_named(raised, error, files)
        if not good:
            wrong.append([name, call, error, after, repr(raised)[:300]])
    return count


def main():
    warnings.simplefilter("ignore")
    if PACE < 1:
        del SAVED["plot.png"]  # which takes as long as all others
    wrong, counts = [], {}
    make_files()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for kinds, check, calls, numbers in (
        (
            {k: (v,) for k, v in SAVED.items()},
            check_writing,
            ("write", "create", "fsync", "rename"),
            WRITING,
        ),
        (
            {k: (v, f) for k, (v, *f) in READ.items()},
            check_reading,
            ("read", "open", "mmap"),
            READING,
        ),
    ):
        for name, arguments in kinds.items():
            for call in calls:
                errors = [int(rng.choice(numbers))]
                if call == calls[0]:
                    errors += [0, errno.EINTR]
                for error in errors:
                    count = check(name, *arguments, call, error, wrong)
                    counts[f"{name} {call} {error}"] = count
    sys.stdout = sys.__stdout__
    print(json.dumps({"wrong": wrong, "counts": counts}))


main()
