"""Where a training stands, as one file that is there whole or not at all.

A checkpoint is an uncompressed .npz: weights `w0000…`, optimizer state `o0000…` (its count of steps included, which the
learning-rate schedule goes by), and `meta`, JSON: history, and what the training is, so that no other training goes on
from it. It is named after the epochs that are done, and after the steps of the next one where it was made inside it.
"""

import io
import json
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segpipe.errors import ModelError
from segpipe.storage.filesystem import filesystem, join, names, remove, replace

if TYPE_CHECKING:
    import tensorflow as tf

_FOLDER = "checkpoints"
_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.npz")


class Position(NamedTuple):
    """How far a training is: epochs that are done, and steps of the next one."""

    epoch: int
    step: int = 0

    @property
    def name(self) -> str:
        """Of its checkpoint's file."""
        inside = f"-step-{self.step:07}" if self.step else ""
        return f"epoch-{self.epoch:05}{inside}.npz"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights and optimizer state at a position, and the history up to there."""

    position: Position
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    meta: dict[str, Any]


def state(model: "tf.keras.Model") -> dict[str, np.ndarray]:
    """The arrays of a checkpoint. All workers call it at once: some variables are read by adding them up."""
    arrays = {f"w{place:04}": np.asarray(array) for place, array in enumerate(model.get_weights())}
    return arrays | {f"o{place:04}": variable.numpy() for place, variable in enumerate(model.optimizer.variables)}


def write(model_url: str, position: Position, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write the checkpoint of a training, then remove those that are neither the newest nor the best."""
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps(meta)), **arrays)
    fs, folder = _place(model_url)
    fs.makedirs(folder, exist_ok=True)
    replace(fs, join(folder, position.name), buffer.getvalue())
    keep = {position.name, Position(meta["best_epoch"]).name}
    for name in names(fs, folder):
        if name not in keep:
            remove(fs, join(folder, name))


def positions(model_url: str) -> list[Position]:
    """What there are checkpoints of, ascending."""
    fs, folder = _place(model_url)
    found = (_NAME.fullmatch(name) for name in names(fs, folder))
    return sorted(Position(int(match[1]), int(match[2] or 0)) for match in found if match)


def read(model_url: str, position: Position) -> Checkpoint:
    """The checkpoint of a position. Raises ModelError if it is damaged."""
    fs, folder = _place(model_url)
    path = join(folder, position.name)
    data = fs.cat_file(path)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            kinds = {kind: [arrays[name] for name in sorted(arrays.files) if name.startswith(kind)] for kind in "wo"}
            return Checkpoint(position, kinds["w"], kinds["o"], json.loads(str(arrays["meta"])))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"Checkpoint {path} is damaged ({error})",
            "remove it: training goes on from the one before, or from the start",
        ) from error


def read_meta(model_url: str, position: Position) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return read(model_url, position).meta


def restore(checkpoint: Checkpoint, model: "tf.keras.Model") -> None:
    """Put weights and optimizer state into a compiled model whose optimizer is built."""
    model.set_weights(checkpoint.weights)
    for variable, array in zip(model.optimizer.variables, checkpoint.optimizer, strict=True):
        variable.assign(array)


def _place(model_url: str) -> tuple[Any, str]:
    fs, folder = filesystem(model_url)
    return fs, join(folder, _FOLDER)
