"""The weights of a network as data: a file of arrays, which is read without running anything that it may name.

`weights.npz` is uncompressed: arrays `w0000…` in the order of Keras's `get_weights`, nothing else. Earlier versions
wrote `model.keras`; of that only the weights are read, never what it says of layers, for Keras would run code that is
named there.
"""

import io
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

WEIGHTS = "weights.npz"
EARLIER = "model.keras"
_ARRAYS_OF_EARLIER = "model.weights.h5"
_HEADER_BYTES = 1 << 10  # of an array in the file, at most
_SPARE = 4  # an earlier file holds weights, the names of layers, and optimizer state


def packed(weights: Sequence[np.ndarray]) -> bytes:
    """The content of `weights.npz`: the same weights, the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **{f"w{place:04}": array for place, array in enumerate(weights)})
    return buffer.getvalue()


def unpacked(data: bytes, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays of these shapes from the content of `weights.npz`; ValueError where it holds anything else.

    >>> unpacked(packed([np.arange(2.0)]), [(2,)])
    [array([0., 1.])]
    """
    names = [f"w{place:04}" for place in range(len(shapes))]
    most = sum(int(np.prod(shape)) for shape in shapes) * 8 + len(shapes) * _HEADER_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if [entry.filename for entry in file.infolist()] != [f"{name}.npy" for name in names]:
                raise ValueError(f"its arrays are not w0000 to w{len(shapes) - 1:04}")
            if sum(entry.file_size for entry in file.infolist()) > most:
                raise ValueError("its arrays are larger than the network")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = [arrays[name] for name in names]
    except (zipfile.BadZipFile, EOFError, OSError, KeyError) as error:
        raise ValueError(str(error)) from error
    for name, array, shape in zip(names, found, shapes, strict=True):
        if array.shape != tuple(shape) or array.dtype.kind != "f":
            raise ValueError(f"{name} is {array.dtype}{array.shape}, the network has {tuple(shape)}")
    return found


def take_earlier(network: "tf.keras.Model", data: bytes) -> None:
    """Give a network the weights of a `model.keras`; ValueError where it holds no weights of this network."""
    size = sum(array.nbytes for array in network.get_weights())
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if file.getinfo(_ARRAYS_OF_EARLIER).file_size > _SPARE * size + (1 << 20):
                raise ValueError("its weights are larger than the network")
            weights = file.read(_ARRAYS_OF_EARLIER)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise ValueError(f"it is not a file that Keras 2.15 or newer saves ({error})") from error
    with tempfile.TemporaryDirectory(prefix="segpipe-model-") as scratch:
        path = Path(scratch) / _ARRAYS_OF_EARLIER
        path.write_bytes(weights)
        try:
            network.load_weights(path)
        except (KeyError, OSError, AttributeError, IndexError, TypeError) as error:
            raise ValueError(str(error)) from error
