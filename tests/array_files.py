"""Files that no array can be read from: how each is made, and the error that it must give."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np


def npy_bytes(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def npy_with_header(shape, values=b"", descr="<f8", version=(1, 0)):
    """Return a .npy file that says `shape`, which NumPy itself would not write."""
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    data = bytearray(stream.getvalue() + values)
    data[6:8] = bytes(version)
    return bytes(data)


def npz_bytes(compress=False, **arrays):
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **arrays)
    return stream.getvalue()


def zip_bytes(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return stream.getvalue()


def corrupted(data, position):
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


SAMPLES = np.arange(120.0).reshape(2, 3, 4, 5)

# name: (contents, type of the error, part of its message)
BAD_FILES = {
    "empty": (b"", ValueError, "is empty: expected a .npy or .npz file, got 0 bytes"),
    "truncated in its values": (
        npy_bytes(SAMPLES)[:-8],
        ValueError,
        r"is truncated: its shape \(2, 3, 4, 5\) of float64 takes 960 bytes, got 952",
    ),
    "without values": (npy_with_header((10**12,)), ValueError, "takes 8000000000000 bytes, got 0"),
    "truncated in its header": (npy_bytes(SAMPLES)[:50], ValueError, "is damaged"),
    "truncated in its magic": (b"\x93NUM", ValueError, r"starts with b'\\x93NUM'"),
    "of a negative size": (npy_with_header((-1, 3)), ValueError, "has a negative size"),
    "of an unknown version": (
        npy_with_header((0,), version=(7, 0)),
        ValueError,
        r"version \(7, 0\) of the .npy format is unknown",
    ),
    "of objects": (
        npy_bytes(np.array([1, "a", None], object), allow_pickle=True),
        ValueError,
        "holds pickled Python objects, which are never loaded",
    ),
    "a pickle": (pickle.dumps(SAMPLES), ValueError, "expected a .npy or .npz file"),
    "a text": (b"1 2 3\n4 5 6\n", ValueError, r"got one that starts with b'1 2 3\\n'"),
    "an .npz of two arrays": (
        npz_bytes(a=SAMPLES, b=SAMPLES),
        ValueError,
        r"must hold one array, got 2 arrays \(a, b\)",
    ),
    "an .npz of no array": (zip_bytes(readme_txt=b"hello"), ValueError, "got 0 arrays"),
    "a truncated .npz": (npz_bytes(a=SAMPLES)[:-30], ValueError, "is damaged: File is not a zip"),
    "a damaged .npz": (
        corrupted(npz_bytes(a=SAMPLES, compress=True), 200),
        ValueError,
        "is damaged",
    ),
    "an .npz with values missing": (
        zip_bytes(a_npy=npy_bytes(SAMPLES)[:-8]),
        ValueError,
        "takes 960 bytes, got 952",
    ),
    "an .npz of objects": (
        zip_bytes(a_npy=npy_bytes(np.array([{}], object), allow_pickle=True)),
        ValueError,
        "holds pickled Python objects",
    ),
    "complex": (npy_bytes(SAMPLES * 1j), TypeError, "must hold real numbers .* got complex128"),
    "of strings": (npy_bytes(np.array(["a"])), TypeError, "must hold real numbers .* got <U1"),
    "of dates": (
        npy_bytes(np.zeros(3, "datetime64[s]")),
        TypeError,
        "must hold real numbers .* got datetime64",
    ),
    "of records": (npy_bytes(np.zeros(3, "i4,f8")), TypeError, "must hold real numbers"),
}
