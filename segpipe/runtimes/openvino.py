"""OpenVINO: from the Keras model of a bundle to an IR inside it, and that IR as a predictor."""

from __future__ import annotations

import importlib.util
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.core.regions import LabelConvention
from segpipe.errors import ModelError, SegpipeError
from segpipe.models.bundle import Bundle, load_keras
from segpipe.runtimes.graph import OUTPUTS, segmenter
from segpipe.runtimes.slicewise import Constants, Outputs, SlicewisePredictor
from segpipe.settings import NetworkSettings
from segpipe.storage import url_to_fs

if TYPE_CHECKING:
    from segpipe.runtimes.contract import PackedPredictor

FILES = ("openvino/model.xml", "openvino/model.bin")
REMEDY = "run `export` on it"

_COMPILED_SHAPES = 6
_PRECISION = {"float32": {"INFERENCE_PRECISION_HINT": "f32"}, "fastest": {}}


def export(bundle_url: str, int8: bool = False) -> Bundle:
    """Convert a Keras model to an IR from int16 slices to uint8 labels, in its bundle, whose new index is given back.

    The index is written last and names the hashes of the new files, so that a half-written export is refused as damaged
    and the next one puts it right. Raises ModelError for a network that cannot be converted, and SegpipeError where
    `int8` is asked for and NNCF is not installed.
    """
    if int8 and importlib.util.find_spec("nncf") is None:
        raise SegpipeError(
            "Package nncf, which quantises to INT8, is not installed", "pip install nncf, or leave out --int8"
        )
    if int8:
        raise SegpipeError("INT8 export is not part of this version", "leave out --int8")
    bundle = Bundle.load(bundle_url)
    contents = convert(load_keras(bundle), bundle)
    fs, folder = url_to_fs(bundle.url)
    for name, data in zip(FILES, contents, strict=True):
        _put(fs, f"{folder.rstrip('/')}/{name}", data)
    return bundle.with_files(*FILES)


def convert(model: Any, bundle: Bundle) -> tuple[bytes, bytes]:
    """The IR of a Keras model, the bytes of its .xml and .bin; see `graph.segmenter`, but `image` is int16."""
    import tensorflow as tf

    if bundle.network["dimensions"] != 2:
        raise ModelError(
            f"Model {bundle.url} is a 3D network, which cannot be exported yet", "train with --dimensions 2"
        )
    model = _in_float32(model, bundle)
    function = segmenter(model, convention(bundle), len(bundle.modalities), bundle.multiple, bundle.threshold)
    with tempfile.TemporaryDirectory(prefix="segpipe-export-") as scratch:
        module = tf.Module()
        module.function = function
        module.model = model
        tf.saved_model.save(module, scratch, signatures=function.get_concrete_function())
        return _convert_saved(Path(scratch))


def predictor(packed: PackedPredictor, threads: int) -> SlicewisePredictor:
    """The predictor of a bundle's IR."""
    xml, weights = (packed.files[name] for name in FILES)
    network = OpenVinoNetwork(xml, weights, threads, packed.spec.precision)
    return SlicewisePredictor(
        network, tuple(packed.bundle.regions), packed.bundle.crop, packed.bundle.multiple, packed.spec.batch_size
    )


def convention(bundle: Bundle) -> LabelConvention:
    """The label convention that a bundle states."""
    labels = {int(label): name for label, name in bundle.labels.items()}
    return LabelConvention(bundle.label_convention, labels, bundle.regions)


class OpenVinoNetwork:
    """A `slicewise.Network` on an IR, compiled once per input shape and dtype; shapes long unused are forgotten."""

    def __init__(self, xml: bytes, weights: bytes, threads: int, precision: str = "fastest"):
        import openvino

        self._core = openvino.Core()
        self._xml = xml
        self._weights = openvino.Tensor(np.frombuffer(weights, np.uint8).copy())
        self._config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # else the workers of a machine all pin themselves to the same cores
            **_PRECISION[precision],
        }
        self._queues: OrderedDict[tuple, Any] = OrderedDict()

    def start(self, image: np.ndarray, constants: Constants, done: Callable[[Outputs], None]) -> None:
        """See `slicewise.Network`; blocks while all requests are busy."""
        inputs = {"image": image, **vars(constants)}
        # the inputs are shared, not copied, and live as long as the request holds them as its user data
        self._queue(image.shape, image.dtype).start_async(inputs, (done, inputs), share_inputs=True)

    def wait(self) -> None:
        """See `slicewise.Network`."""
        for queue in self._queues.values():
            queue.wait_all()

    def _queue(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        key = (shape, dtype)
        if key not in self._queues:
            if len(self._queues) == _COMPILED_SHAPES:
                self._queues.popitem(last=False)[1].wait_all()
            self._queues[key] = self._compile(shape, dtype)
        self._queues.move_to_end(key)
        return self._queues[key]

    def _compile(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        import openvino

        model = self._core.read_model(self._xml, self._weights)
        model.reshape({"image": list(shape)})
        if dtype == np.float32:
            model.input("image").get_node().set_element_type(openvino.Type.f32)
            model.validate_nodes_and_infer_types()
        queue = openvino.AsyncInferQueue(self._core.compile_model(model, "CPU", self._config))
        queue.set_callback(_deliver)
        return queue


def _deliver(request: Any, data: tuple[Callable[[Outputs], None], Any]) -> None:
    data[0](Outputs(**{name: request.get_tensor(name).data for name in OUTPUTS}))


def _in_float32(model: Any, bundle: Bundle) -> Any:
    """The same network computing in float32: which precision it runs in is decided where it runs."""
    if bundle.network["precision"] == "float32":
        return model
    from segpipe.models.unet import build_unet

    names = {setting.name for setting in fields(NetworkSettings)}
    settings = NetworkSettings(**{name: value for name, value in bundle.network.items() if name in names})
    twin = build_unet(replace(settings, precision="float32"), len(bundle.modalities), len(bundle.regions))
    twin.set_weights(model.get_weights())
    return twin


def _convert_saved(folder: Path) -> tuple[bytes, bytes]:
    """SavedModel to IR by the runtime's own reader, for `openvino.convert_model` reports each use to a web service."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(openvino.Core().read_model(folder))
    steps.input("image").tensor().set_element_type(openvino.Type.i16)
    target = folder / "ir" / "model.xml"
    target.parent.mkdir()
    openvino.save_model(steps.build(), target, compress_to_fp16=False)
    return target.read_bytes(), target.with_suffix(".bin").read_bytes()


def _put(fs: Any, path: str, data: bytes) -> None:
    """Write a file aside and rename it into its place."""
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(f"{path}.draft", data)
    fs.mv(f"{path}.draft", path)
