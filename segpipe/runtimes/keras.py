"""Keras itself as a runtime: slower, but there for every model that was trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.core.prediction import Predictor
from segpipe.errors import UsageError
from segpipe.models.bundle import SLICES_TRAINED, Bundle, with_weights
from segpipe.runtimes.network import network_function, on_network, together
from segpipe.runtimes.slicewise import Constants, Outputs

if TYPE_CHECKING:
    from segpipe.runtimes.contract import PackedPredictor


def precision(bundle: Bundle) -> str:
    """The precision that the network was trained in; there is no other. ModelError for an adopted network."""
    bundle.must_be_trained_here("run in Keras")
    return str(bundle.network["precision"])


def files(bundle: Bundle, precision: str, looks: str = "all") -> tuple[tuple[str, ...], str]:
    """The files that a predictor needs, and what to do where one is missing. UsageError for looks where in doubt."""
    if looks != "all":
        raise UsageError(
            f"The Keras runtime looks at every slice equally often, so --looks {looks} does not apply",
            "give --runtime openvino",
        )
    slices = SLICES_TRAINED if bundle.has_slices else ()
    return (bundle.weights_file, *slices), "copy it again from where it was trained"


def predictor(packed: PackedPredictor, threads: int) -> Predictor:
    """The predictor of a bundle's Keras model."""
    bundle = packed.bundle
    _use(threads)
    model = with_weights(bundle, packed.files[bundle.weights_file])
    kind = KerasTiles if bundle.network["dimensions"] == 3 else KerasNetwork
    found = on_network(kind(network_function(model, bundle)), bundle, packed.spec.batch_size)
    if bundle.has_slices:
        index, weights = (packed.files[name] for name in SLICES_TRAINED)
        slices = bundle.slices(index)
        network = KerasNetwork(network_function(with_weights(slices, weights), slices, with_probability=True))
        return together(found, on_network(network, slices, packed.spec.batch_size))
    return found


class KerasNetwork:
    """A `slicewise.Network` that does each request at once."""

    def __init__(self, function: Any):
        self._function = function

    def start(self, image: np.ndarray, constants: Constants, done: Callable[[Outputs], None]) -> None:
        """See `slicewise.Network`."""
        found = self._function(image.astype(np.float32, copy=False), **vars(constants))
        done(Outputs(**{name: value.numpy() for name, value in found.items()}))

    def wait(self) -> None:
        """See `slicewise.Network`."""


class KerasTiles:
    """A `tiled.TileNetwork` that does each request at once."""

    def __init__(self, function: Any):
        self._function = function

    def start(
        self, tiles: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, done: Callable[[np.ndarray], None]
    ) -> None:
        """See `tiled.TileNetwork`."""
        found = self._function(tiles.astype(np.float32, copy=False), mean, inverse_std)
        done(found["probability"].numpy())

    def wait(self) -> None:
        """See `tiled.TileNetwork`."""


def _use(threads: int) -> None:
    """Limit TensorFlow to the task's threads, which it allows only before its first operation in a process."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
