"""The weights of a TorchScript archive without PyTorch: its pickle names arrays, and nothing in it is run.

The archive is a zip: `data.pkl` holds the tree of modules, `data/N` the raw values of storage N (PyTorch,
torch/csrc/jit/docs/serialization.md).
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

_STORAGES = {"FloatStorage": "<f4"}


class _Module(dict):
    """A module of the tree: its attributes by name."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


def weights(path: Path) -> dict[str, np.ndarray]:
    """All tensors of the archive by dotted name, such as `down0.block1.double_conv.0.weight`, float32.

    Raises ValueError for a file that is no such archive, or that holds anything but modules and float32 tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folder = archive.namelist()[0].partition("/")[0]
            tree = _Reader(archive, folder).load()
    except (zipfile.BadZipFile, KeyError, IndexError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} is not a TorchScript archive ({error})") from error
    return _tensors(tree, "")


class _Reader(pickle.Unpickler):
    """An unpickler that makes modules and arrays, and refuses every other class."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): OrderedDict,
            **{("torch", storage): storage for storage in _STORAGES},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return known[module, name]

    def persistent_load(self, pid: tuple[str, str, str, str, int]) -> np.ndarray:
        kind, storage, key = pid[:3]
        if kind != "storage" or storage not in _STORAGES or not key.isdigit():
            raise pickle.UnpicklingError(f"{pid[:3]} is not allowed in it")
        return np.frombuffer(self._archive.read(f"{self._folder}/data/{key}"), _STORAGES[storage])


def _tensor(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> np.ndarray:
    count = int(np.prod(shape))
    contiguous = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    if strides != contiguous or offset + count > len(storage):
        raise pickle.UnpicklingError(f"a tensor of {shape} with strides {strides} is not allowed in it")
    return storage[offset : offset + count].reshape(shape)


def _tensors(module: _Module, prefix: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in module.items():
        if isinstance(value, _Module):
            found |= _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, np.ndarray):
            found[prefix + name] = value
    return found
