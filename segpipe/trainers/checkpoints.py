"""Where a training stands after an epoch, as one file that is there whole or not at all.

A checkpoint is an uncompressed .npz: weights `w0000…`, optimizer state `o0000…` (its count of steps included, which the
learning-rate schedule goes by), and `meta`, JSON: epoch, history, and what the training is, so that no other training
goes on from it.
"""

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.warehouse.filesystem import filesystem, join, names, remove, replace

if TYPE_CHECKING:
    import tensorflow as tf

_FOLDER = "checkpoints"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights and optimizer state after `epoch` epochs, and the history up to there."""

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    meta: dict[str, Any]


def write(model_url: str, epoch: int, model: "tf.keras.Model", meta: dict[str, Any]) -> None:
    """Write the checkpoint of a model in training, then remove those that are neither the newest nor the best."""
    arrays = {f"w{place:04}": np.asarray(array) for place, array in enumerate(model.get_weights())}
    arrays |= {f"o{place:04}": variable.numpy() for place, variable in enumerate(model.optimizer.variables)}
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps({**meta, "epoch": epoch})), **arrays)
    fs, folder = _place(model_url)
    fs.makedirs(folder, exist_ok=True)
    replace(fs, join(folder, _name(epoch)), buffer.getvalue())
    keep = {_name(epoch), _name(meta["best_epoch"])}
    for name in names(fs, folder):
        if name not in keep:
            remove(fs, join(folder, name))


def epochs(model_url: str) -> list[int]:
    """The epochs that there are checkpoints of, ascending."""
    fs, folder = _place(model_url)
    return sorted(int(name[6:-4]) for name in names(fs, folder) if name.startswith("epoch-") and name.endswith(".npz"))


def read(model_url: str, epoch: int) -> Checkpoint:
    """The checkpoint after `epoch` epochs."""
    fs, folder = _place(model_url)
    with np.load(io.BytesIO(fs.cat_file(join(folder, _name(epoch)))), allow_pickle=False) as arrays:
        kinds = {kind: [arrays[name] for name in sorted(arrays.files) if name.startswith(kind)] for kind in "wo"}
        return Checkpoint(epoch, kinds["w"], kinds["o"], json.loads(str(arrays["meta"])))


def read_meta(model_url: str, epoch: int) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return read(model_url, epoch).meta


def restore(checkpoint: Checkpoint, model: "tf.keras.Model") -> None:
    """Put weights and optimizer state into a compiled model."""
    model.set_weights(checkpoint.weights)
    model.optimizer.build(model.trainable_variables)
    for variable, array in zip(model.optimizer.variables, checkpoint.optimizer, strict=True):
        variable.assign(array)


def _place(model_url: str) -> tuple[Any, str]:
    fs, folder = filesystem(model_url)
    return fs, join(folder, _FOLDER)


def _name(epoch: int) -> str:
    return f"epoch-{epoch:05}.npz"
