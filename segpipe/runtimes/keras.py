"""Keras itself as a runtime: slower, but there for every model that was trained."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.errors import ModelError
from segpipe.models.bundle import KERAS, Bundle, load_keras
from segpipe.runtimes.graph import OUTPUTS, segmenter
from segpipe.runtimes.openvino import convention
from segpipe.runtimes.slicewise import Constants, Outputs, SlicewisePredictor

if TYPE_CHECKING:
    from segpipe.runtimes.contract import PackedPredictor


def precision(bundle: Bundle) -> str:
    """The precision that the network was trained in; no other is to be had."""
    return str(bundle.network["precision"])


def files(precision: str) -> tuple[tuple[str, ...], str]:
    """The files that a predictor needs, and what to do where one is missing."""
    return (KERAS,), "copy it again from where it was trained"


def predictor(packed: PackedPredictor, threads: int) -> SlicewisePredictor:
    """The predictor of a bundle's Keras model."""
    bundle = packed.bundle
    if bundle.network["dimensions"] != 2:
        raise ModelError(f"Model {bundle.url} is a 3D network, which cannot segment yet", "train with --dimensions 2")
    _use(threads)
    with tempfile.TemporaryDirectory(prefix="segpipe-model-") as scratch:
        for name, data in packed.files.items():
            (Path(scratch) / name).write_bytes(data)
        model = load_keras(replace(bundle, url=scratch))
    function = segmenter(model, convention(bundle), len(bundle.modalities), bundle.multiple, bundle.threshold)
    return SlicewisePredictor(
        KerasNetwork(function), tuple(bundle.regions), bundle.crop, bundle.multiple, packed.spec.batch_size
    )


class KerasNetwork:
    """A `slicewise.Network` that does each request at once."""

    def __init__(self, function: Any):
        self._function = function

    def start(self, image: np.ndarray, constants: Constants, done: Callable[[Outputs], None]) -> None:
        """See `slicewise.Network`."""
        found = self._function(image.astype(np.float32, copy=False), **vars(constants))
        done(Outputs(**{name: found[name].numpy() for name in OUTPUTS}))

    def wait(self) -> None:
        """See `slicewise.Network`."""


def _use(threads: int) -> None:
    """Limit TensorFlow to the task's threads, which it allows only before its first operation in a process."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
