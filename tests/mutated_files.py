"""Damages files of every format that convext reads, reads them, and says what came of it.

    python tests/mutated_files.py SEED COUNT

Each must be read, or be an error that says so, in bounded memory and time: whatever else happens is
printed, and is the exit status.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import stopwatch

import convext
from convext.kernels_file import load_kernels, save_kernels
from convext.ops.data import load_array, load_data

# Bytes beyond what the process has at the start; what is read takes some kilobytes.
MEMORY = 160 << 20
WATCHED = "asan" in os.environ.get("LD_PRELOAD", "")
SECONDS = 60.0 if WATCHED else 5.0
TEXTS = {"record", "config", "settings"}  # members that hold JSON
FAR = 1 << 28  # bytes that are promised, or packed into a few

NUMBERS = [0, -1, 1, 2, 2**31 - 1, 2**31, 2**32 + 1, 2**63 - 1, 2**63, 10**30, -(10**30), 10**4400]
VALUES = [*NUMBERS, 0.5, -0.0, 1e300, float("nan"), float("inf"), True, None, "", "é\0" * 9, [], {}]
VALUES += [[1, 2, 3], [[1, 2], [3, 4]], {"a": 1}, "same", [2**31, 2**31], "x" * 10_000]
DESCRIPTIONS = [
    "<f8",
    ">f4",
    "<f2",
    "|b1",
    "<i8",
    "<u1",
    "<c16",
    "|O",
    "<U5",
    "<M8[s]",
    "|V8",
    "f9",
]
DESCRIPTIONS += ["<f" + "9" * 5000, "<U1073741824", "", "?" * 99, ("<f8", (2, 2)), [("a", "<f8")]]
DESCRIPTIONS += [("<f8", (2**31, 2**31)), 3, None, "<f8,<f8", "(3,)f8", "\0", "<f8\n"]


def samples(folder):
    """Return a good file of each kind, and how it is read: {name: (contents, function)}."""
    rng = np.random.default_rng(0)
    array = rng.random((2, 3, 4, 5))
    path = Path(folder, "good")
    files = {}
    for version in (1, 2, 3):
        with open(path, "wb") as stream:
            np.lib.format.write_array(stream, np.asfortranarray(array), (version, 0))
        files[f"npy {version}"] = path.read_bytes(), partial(load_array, name="x")
    files["npy mapped"] = files["npy 1"][0], partial(load_array, name="x", mmap=True)
    files["npy pair"] = files["npy 2"][0], lambda file: load_data(file, file)
    for save in (np.savez, np.savez_compressed):
        with open(path, "wb") as stream:
            save(stream, array.astype("f4"))
        files[save.__name__.strip("_")] = path.read_bytes(), partial(load_array, name="x")
    save_kernels(path, array, {"losses": [0.5, 0.25], "bias": [1.0, 2.0], "padding": "same"})
    files["kernels"] = path.read_bytes(), load_kernels
    for optimizer in ("adam", convext.SGD(convext.schedules.reduce_on_plateau(0.1), momentum=0.9)):
        layers = [convext.Conv2D(2, 3, activation="relu"), convext.Conv2D(1, 1, padding="same")]
        model = convext.Sequential(layers, input_channels=3, seed=0)
        model.compile(optimizer)
        model.fit(array, rng.random((2, 1, 2, 3)), epochs=2, verbose=0)
        model.save(path)
        files[f"model {type(model.optimizer).__name__}"] = path.read_bytes(), convext.load_model
    statistics = convext.PatchStatistics(3, 2, (2, 2), bias=True)
    statistics.update(array, rng.random((2, 2, 3, 4)))
    statistics.save(path)
    files["statistics"] = path.read_bytes(), convext.PatchStatistics.load
    for kind in "train", "fit":
        checkpoint = Path(folder, f"good {kind}")
        go_on = partial(resume, kind)
        go_on(checkpoint)
        files[f"checkpoint of {kind}"] = checkpoint.read_bytes(), go_on
    return files


def resume(kind, file):
    """Go on with a training from a checkpoint, and write others."""
    x, y = np.ones((4, 1, 5, 5)), np.ones((4, 1, 4, 4))
    options = {"checkpoint": file, "checkpoint_every": 1, "resume": True}
    stop = convext.EarlyStopping(9, restore_best_weights=True)
    if kind == "train":
        rate = convext.schedules.reduce_on_plateau(0.1)
        how = {"shuffle": True, "seed": 0, "method": "statistics", "verbose": False}
        return convext.train_model(x, y, 1, 2, rate, 3, callbacks=[stop], **how, **options)
    model = convext.build_model(1, 2, 1, seed=0)
    return model.fit(x, y, 2, 3, 0, [stop], validation_data=(x, y), **options)


def damage_bytes(data, rng):
    """Change, take out, repeat or put in some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        at = rng.randrange(len(data) + 1)
        length = rng.choice([1, 2, 4, 8, 100])
        kind = rng.randrange(5)
        if kind == 0:
            del data[at : at + length]
        elif kind == 1:
            data[at:at] = data[at : at + length]
        elif kind == 2:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 3:
            data[at : at + length] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])]) * length
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def damage_header(data, rng):
    """Give a .npy file another header."""
    if not data.startswith(b"\x93NUMPY"):
        return damage_bytes(data, rng)
    dimensions = rng.choice([0, 1, 4, 4, 4, 33, 200])
    shape = tuple(rng.choice([*NUMBERS, 1, 2, 3, True, 0.5]) for _ in range(dimensions))
    fields = {
        "descr": rng.choice(DESCRIPTIONS) if rng.random() < 0.6 else "<f8",
        "fortran_order": rng.choice([True, False, False, 1, None]),
        "shape": shape if rng.random() < 0.7 else rng.choice([(2, 3, 4, 5), *VALUES]),
    }
    if rng.random() < 0.2:
        fields[rng.choice(["more", "descr"])] = rng.choice(VALUES)
    sys.set_int_max_str_digits(0)
    text = repr(fields)
    sys.set_int_max_str_digits(4300)
    if rng.random() < 0.2:
        text = rng.choice(
            ["-" * 9000 + "1", "[" * 9000, "(" * 4000, text * 3, "{" * 9900, "\0", ""]
        )
    header = text.encode("latin1", "replace") + b" " * rng.randrange(64) + b"\n"
    version = rng.choice([1, 1, 2, 3, 9])
    length = len(header) if rng.random() < 0.8 else rng.choice([0, 5, 65535, 2**32 - 1])
    packed = struct.pack("<H", min(length, 65535)) if version == 1 else struct.pack("<I", length)
    values = rng.randbytes(960) if rng.random() < 0.8 else b""
    return b"\x93NUMPY" + bytes([version, 0]) + packed + header + values


def changed(value, rng):
    """Return JSON's `value` with something in it replaced."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    value = value.copy()
    kind = rng.random()
    if kind < 0.1:
        del value[key]
    elif kind < 0.15 and isinstance(value, dict):
        value[rng.choice(["more", "filters", "__class__"])] = rng.choice(VALUES)
    else:
        value[key] = changed(value[key], rng)
    return value


def damage_text(data, rng):
    """Return another text for a member that holds JSON, as a .npy file."""
    text = str(np.load(io.BytesIO(data), allow_pickle=False))
    sys.set_int_max_str_digits(0)
    text = json.dumps(changed(json.loads(text), rng))
    sys.set_int_max_str_digits(4300)
    if rng.random() < 0.15:
        text = rng.choice(["[" * 100_000, '{"a":' * 9000, "", "{", "[]", "null", text + text, "\0"])
    stream = io.BytesIO()
    if rng.random() < 0.01:
        header = {"descr": f"<U{FAR // 4}", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.getvalue() + bytes(FAR)
    np.lib.format.write_array(stream, np.array(text))
    return stream.getvalue()


def damage_archive(data, rng):
    """Change a member of an archive, how it is packed, or what is said about it."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return damage_header(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    texts = [member for member in members if member.removesuffix(".npy") in TEXTS]
    if texts and rng.random() < 0.5:
        name = texts[0]
    method = zipfile.ZIP_DEFLATED
    kind = rng.randrange(8)
    if name in texts and kind not in {3, 6, 7}:
        members[name] = damage_text(members[name], rng)
    elif kind < 2:
        members[name] = damage_header(members[name], rng)
    elif kind == 2:
        members[name] = damage_bytes(members[name], rng)
    elif kind == 3:
        members[name.removesuffix(".npy")] = members.pop(name)
    elif kind == 4:
        values = np.load(io.BytesIO(members[name]), allow_pickle=False)
        values = rng.choice([values.T, values.astype("O"), values[..., None], values.ravel()[:-1]])
        stream = io.BytesIO()
        np.lib.format.write_array(stream, values)
        members[name] = stream.getvalue()
    elif kind == 5:
        method = rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])
    elif kind == 6:
        del members[name]
    bomb = rng.random() < 0.01 and np.lib.format.magic(1, 0) in members.get(name, b"")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for member, contents in members.items():
            archive.writestr(member, contents + bytes(FAR if bomb and member == name else 0))
    data = stream.getvalue()
    return lie_about_sizes(data, rng) if kind == 7 else data


def lie_about_sizes(data, rng):
    """Change sizes, positions, flags and methods in the headers of an archive."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 2, 4])):
        signature, fields = rng.choice(
            [
                (b"PK\3\4", [(6, "<H"), (8, "<H"), (18, "<I"), (22, "<I"), (26, "<H"), (28, "<H")]),
                (
                    b"PK\1\2",
                    [
                        (8, "<H"),
                        (10, "<H"),
                        (20, "<I"),
                        (24, "<I"),
                        (28, "<H"),
                        (30, "<H"),
                        (42, "<I"),
                    ],
                ),
                (b"PK\5\6", [(8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H")]),
            ]
        )
        at = data.find(signature, rng.randrange(len(data)))
        offset, kind = rng.choice(fields)
        if at >= 0 and at + offset + 4 <= len(data):
            most = 2 ** (8 * struct.calcsize(kind)) - 1
            struct.pack_into(
                kind, data, at + offset, rng.choice([0, 1, 8, most // 2, most, FAR & most])
            )
    return bytes(data)


def outcome_of(name, number, path):
    """Damage a file, read it, and return what came of it; whatever must not be is an error."""
    contents, read = files()[name]
    rng = random.Random(number)
    damage = rng.choice([damage_bytes, damage_header, damage_archive, damage_archive])
    path.write_bytes(damage(contents, rng))
    limit(used() + MEMORY)
    started = stopwatch.seconds()
    try:
        read(path)
        outcome = "read"
    except (ValueError, OSError):
        outcome = "refused"
    finally:
        limit(resource.RLIM_INFINITY)
    seconds = stopwatch.seconds() - started
    assert seconds < SECONDS, f"{seconds:.1f} s"
    return outcome


def draw_file(rng):
    """Draw a kind of file, and what says how it is damaged."""
    names = sorted(files())
    return {"name": names[rng.integers(len(names))], "number": int(rng.integers(2**31))}


def check_file(name, number):
    """Damage a file and read it."""
    with tempfile.TemporaryDirectory() as folder:
        outcome_of(name, number, Path(folder, "damaged"))


@lru_cache(maxsize=1)
def files():
    """Return what `samples` does; each file can be read."""
    with tempfile.TemporaryDirectory() as folder:
        found = samples(folder)
        for name, (contents, read) in found.items():
            path = Path(folder, name)
            path.write_bytes(contents)
            read(path)
    return found


def used():
    """Return how many bytes of addresses the process has."""
    with open("/proc/self/statm") as status:
        return int(status.read().split()[0]) * resource.getpagesize()


def limit(size):
    """Limit the addresses of the process; sanitizers take all there are."""
    if not WATCHED:
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def main():
    seed, count = map(int, sys.argv[1:])
    warnings.simplefilter("ignore")
    outcomes, failures = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            name = list(files())[i % len(files())]
            try:
                outcomes[name, outcome_of(name, f"{seed} {i}", Path(folder, "damaged"))] += 1
            except BaseException as error:
                failures.append(f"{name}, {i}: {type(error).__name__}: {str(error)[:200]}")
    print("\n".join(failures))
    print(json.dumps({" ".join(key): number for key, number in sorted(outcomes.items())}))
    return min(len(failures), 100)


if __name__ == "__main__":
    sys.exit(main())
