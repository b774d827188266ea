"""From a Keras model to OpenVINO's IR, by the runtime's own reader."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from segpipe.models.bundle import SLICES_TRAINED, Bundle, built, load_keras
from segpipe.runtimes.network import network_function
from segpipe.runtimes.openvino import core


def convert(model: Any, bundle: Bundle, with_probability: bool = False) -> tuple[bytes, ...]:
    """The IR of a Keras model, the bytes of its .xml and .bin; see `segpipe.runtimes.network`, but `image` is int16.

    Of a 3D one that has a 2D one beside it, the contents of all that `segpipe.runtimes.openvino.on_ir` takes.
    """
    contents = _converted(model, bundle, with_probability)
    if not bundle.has_slices:
        return contents
    slices = bundle.slices()
    index = slices.beside()[SLICES_TRAINED[0]]
    return (*contents, index, *_converted(load_keras(slices), slices, with_probability=True))


def _converted(model: Any, bundle: Bundle, with_probability: bool) -> tuple[bytes, bytes]:
    import tensorflow as tf

    model = _in_float32(model, bundle)
    function = network_function(model, bundle, with_probability)
    with tempfile.TemporaryDirectory(prefix="segpipe-export-") as scratch:
        module = tf.Module()
        module.weights = model.variables  # not the model: Keras would trace each of its layers to be loaded as such
        tf.saved_model.save(module, scratch, signatures=function.get_concrete_function())  # which is not traced again
        return _convert_saved(Path(scratch))


def _in_float32(model: Any, bundle: Bundle) -> Any:
    """The same network computing in float32: which precision it runs in is decided where it runs."""
    if bundle.network["precision"] == "float32":
        return model
    twin = built(replace(bundle, network={**bundle.network, "precision": "float32"}))
    twin.set_weights(model.get_weights())
    return twin


def _convert_saved(folder: Path) -> tuple[bytes, bytes]:
    """SavedModel to IR by the runtime's own reader, for `openvino.convert_model` reports each use to a web service."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(core().read_model(folder))
    steps.input("image").tensor().set_element_type(openvino.Type.i16)
    target = folder / "ir" / "model.xml"
    target.parent.mkdir()
    openvino.save_model(steps.build(), target, compress_to_fp16=False)
    return target.read_bytes(), target.with_suffix(".bin").read_bytes()
