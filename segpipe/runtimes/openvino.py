"""OpenVINO: from the Keras model of a bundle to an IR inside it, and that IR as a predictor."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.core.prediction import Predictor, Sample
from segpipe.core.regions import LabelConvention
from segpipe.errors import ModelError
from segpipe.models.bundle import ADOPTED, Bundle, load_keras
from segpipe.runtimes.graph import OUTPUTS, PROBABILITY, segmenter, tiler
from segpipe.runtimes.looks import doubtful, once
from segpipe.runtimes.slicewise import Constants, Outputs, SlicewisePredictor
from segpipe.runtimes.tiled import OVERLAP, TiledPredictor
from segpipe.settings import NetworkSettings
from segpipe.storage import filesystem as files_of_disk
from segpipe.storage import url_to_fs

if TYPE_CHECKING:
    from segpipe.runtimes.contract import PackedPredictor

FILES = ("openvino/model.xml", "openvino/model.bin")
INT8_FILES = ("openvino-int8/model.xml", "openvino-int8/model.bin")
LOOK_FILES = ("openvino-look/model.xml", "openvino-look/model.bin")
"""A network that sees mirror images, as one that looks once and tells its probabilities; see `runtimes.looks`."""

_COMPILED_SHAPES = 6
_CALIBRATION_REQUESTS = 128
_EXACT = ["Multiply", "Add", "Subtract", "ReduceMean", "ReduceSum", "ReduceMax", "SquaredDifference", "Sigmoid"]
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}  # of INT8: for what is not quantised


def export(
    bundle_url: str,
    validation: Sequence[Sample] = (),
    calibration: Sequence[Sample] | None = None,
    expected: str | None = None,
    clean: bool = True,
    learnt: Sequence[Sample] = (),
    cut: bool = True,
) -> Bundle:
    """Convert a Keras model to an IR from int16 slices to uint8 labels, in its bundle, whose new index is given back.

    The precision that `segment` shall use is measured on the scans of `validation`, see `judge.choose`; without any it
    is float32. Where each region is cut is chosen on these and on the `learnt` ones of the training if `cut` says so,
    and what is too small to be a lesion if `clean` says so, see `judge.choose_decisions`; the model then has another
    `model_id`. With scans for `calibration` an INT8 model is made too and published where `judge.judge_int8` lets it.
    The index is written last and names the hashes of the new files, so that a half-written export is refused as damaged
    and the next one puts it right. Raises ModelError for a network that cannot be converted, and for one whose float32
    masks are not those of Keras, and for a model of another seal than `expected`.
    """
    from segpipe.runtimes import judge

    bundle = Bundle.load(bundle_url, expected)
    bundle.must_be_trained_here("convert")
    bundle = bundle.undecided  # what an earlier export chose is chosen again
    contents = convert(load_keras(bundle), bundle)
    chosen, _ = judge.choose(bundle, contents, validation)
    decided = judge.choose_decisions(bundle, contents, chosen["precision"], validation, learnt, cut, clean)
    chosen |= decided.told
    if any(decided.fields.values()):
        chosen["trained_as"] = bundle.trained_as
    if decided.thresholds:
        bundle = replace(bundle, thresholds=decided.thresholds)
        contents = convert(load_keras(bundle), bundle)
    int8, published = None, False
    if calibration is not None and bundle.network["dimensions"] == 3:
        chosen["int8"] = {"published": False, "reason": "3D networks are not quantised in this version"}
    elif calibration is not None:
        int8 = quantise(contents, bundle, calibration)
        chosen["int8"] = judge.judge_int8(bundle, contents, int8, chosen["precision"], validation)
        published = chosen["int8"]["published"]
    fs, folder = url_to_fs(bundle.url)
    written = dict(zip(FILES, contents, strict=True))
    if _sees_mirror_images(bundle):
        look = replace(bundle, network=once(bundle.network))
        written |= zip(LOOK_FILES, convert(load_keras(look), look, with_probability=True), strict=True)
    if int8 is not None and published:
        written |= zip(INT8_FILES, int8, strict=True)
        chosen |= {"precision": "int8"}
    for name, data in written.items():
        _put(fs, f"{folder.rstrip('/')}/{name}", data)
    gone = tuple(name for name in (*INT8_FILES, *LOOK_FILES) if name not in written)
    return bundle.with_files(*written, without=gone, inference=chosen, **decided.fields)


def _sees_mirror_images(bundle: Bundle) -> bool:
    return bundle.network["dimensions"] != 3 and bool(bundle.network.get("mirror"))


def _looks_alike(bundle: Bundle) -> str:
    """Why a model cannot look where in doubt; empty if it can."""
    if bundle.origin == ADOPTED:
        return "looks everywhere as its card says"
    if bundle.network["dimensions"] == 3:
        often = "four times" if bundle.network.get("mirror") else "once"
        return f"sees volumes and no slices, and looks at all of each {often}"
    return "" if _sees_mirror_images(bundle) else "looks at every slice once anyway"


def precision(bundle: Bundle) -> str:
    """The precision that `export` chose."""
    return str(bundle.inference.get("precision", "float32"))


def files(bundle: Bundle, precision: str, looks: str = "all") -> tuple[tuple[str, ...], str]:
    """The files that a predictor needs, and what to do where one is missing.

    Raises ModelError for looks that the model does not have.
    """
    if looks == "doubt":
        if why := _looks_alike(bundle):
            raise ModelError(f"Model {bundle.url} {why}", "leave out --looks")
        if precision == "int8":
            raise ModelError(f"Model {bundle.url} in INT8 looks at every slice as often", "give another --precision")
        return LOOK_FILES, "run `export` on it with this version"
    if precision == "int8":
        return (
            INT8_FILES,
            "run `export --int8` on it, which publishes an INT8 model only where it is faster and as good",
        )
    return FILES, "run `export` on it"


def convert(model: Any, bundle: Bundle, with_probability: bool = False) -> tuple[bytes, bytes]:
    """The IR of a Keras model, the bytes of its .xml and .bin; see `network_function`, but `image` is int16."""
    import tensorflow as tf

    model = _in_float32(model, bundle)
    function = network_function(model, bundle, with_probability)
    with tempfile.TemporaryDirectory(prefix="segpipe-export-") as scratch:
        module = tf.Module()
        module.function = function
        module.weights = model.variables  # not the model: Keras would trace each of its layers to be loaded as such
        tf.saved_model.save(module, scratch, signatures=function.get_concrete_function())
        return _convert_saved(Path(scratch))


def quantise(contents: tuple[bytes, bytes], bundle: Bundle, calibration: Sequence[Sample]) -> tuple[bytes, bytes]:
    """The IR with convolutions in INT8, calibrated on slices of these scans; .xml and .bin again.

    What stands before the first convolution, behind the last one, and in the statistics of instance normalisation
    stays as it is. Raises ModelError if there are no scans to calibrate on.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it reports each use to a web service
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    requests = list(itertools.islice(_calibration_requests(bundle, calibration), _CALIBRATION_REQUESTS))
    if not requests:
        raise ModelError(
            f"No scan of the training split is there to calibrate the INT8 model of {bundle.url}",
            "give --warehouse the tables that it was trained on",
        )
    model = _core().read_model(contents[0], openvino.Tensor(np.frombuffer(contents[1], np.uint8).copy()))
    quantised = nncf.quantize(
        model,
        nncf.Dataset(requests),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(requests),
        ignored_scope=nncf.IgnoredScope(types=_EXACT, validate=False),
    )
    with tempfile.TemporaryDirectory(prefix="segpipe-export-") as scratch:
        target = Path(scratch) / "model.xml"
        openvino.save_model(quantised, target, compress_to_fp16=False)
        return target.read_bytes(), target.with_suffix(".bin").read_bytes()


def _calibration_requests(bundle: Bundle, samples: Sequence[Sample]) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of single slices as `segment` sends them, spread over the scans, and within a scan over its brain."""
    share = max(1, -(-_CALIBRATION_REQUESTS // max(1, len(samples))))
    for sample in samples:
        recorder = _Recorder()
        SlicewisePredictor(recorder, tuple(bundle.regions), bundle.crop, bundle.multiple, 1).segment(
            sample.scan, sample.slices
        )
        step = max(1, len(recorder.requests) // share)
        yield from recorder.requests[step // 2 :: step][:share]


class _Recorder:
    """A `slicewise.Network` that keeps what it is asked and answers with background."""

    def __init__(self) -> None:
        self.requests: list[dict[str, np.ndarray]] = []

    def start(self, image: np.ndarray, constants: Constants, done: Callable[[Outputs], None]) -> None:
        """See `slicewise.Network`."""
        self.requests.append({"image": image, **vars(constants)})

    def wait(self) -> None:
        """See `slicewise.Network`."""


def network_function(model: Any, bundle: Bundle, with_probability: bool = False) -> Any:
    """From stored voxels to what a runtime needs: `graph.segmenter` of a 2D model, `graph.tiler` of a 3D one."""
    if bundle.network["dimensions"] == 3:
        return tiler(model, len(bundle.modalities))
    channels, multiple = len(bundle.modalities), bundle.multiple
    return segmenter(model, convention(bundle), channels, multiple, bundle.cut, with_probability)


def on_network(network: Any, bundle: Bundle, batch_size: int) -> Predictor:
    """The predictor of a network that does what `network_function` does."""
    if bundle.network["dimensions"] == 3:
        overlap = bundle.training.get("tile_overlap", OVERLAP)
        return TiledPredictor(network, convention(bundle), bundle.crop, overlap, bundle.cut)
    return SlicewisePredictor(network, tuple(bundle.regions), bundle.crop, bundle.multiple, batch_size)


def predictor(packed: PackedPredictor, threads: int) -> Predictor:
    """The predictor of a bundle's IR."""
    bundle, spec = packed.bundle, packed.spec
    xml, weights = (packed.files[name] for name in files(bundle, spec.precision, spec.looks)[0])
    found = on_ir((xml, weights), bundle, threads, spec.precision, spec.batch_size)
    if spec.looks == "doubt":
        assert isinstance(found, SlicewisePredictor)  # `files` has seen to it
        return doubtful(found, convention(bundle), bundle.cut)
    return found


def prober(
    contents: tuple[bytes, bytes], bundle: Bundle, threads: int, precision: str, batch_size: int
) -> TiledPredictor | SlicewisePredictor:
    """A predictor that tells probabilities, of a bundle whose IR is `contents`; a 2D one is converted anew for it."""
    if bundle.network["dimensions"] != 3:
        contents = convert(load_keras(bundle), bundle, with_probability=True)
    found = on_ir(contents, bundle, threads, precision, batch_size)
    assert isinstance(found, TiledPredictor | SlicewisePredictor)  # adopted networks are not exported
    return found


def on_ir(contents: tuple[bytes, bytes], bundle: Bundle, threads: int, precision: str, batch_size: int) -> Predictor:
    """The predictor of an IR, the bytes of its .xml and .bin."""
    if bundle.origin == ADOPTED:
        from segpipe.runtimes.adopted import adopted_predictor

        return adopted_predictor(OpenVinoWindows(*contents, threads, precision), bundle, batch_size)
    kind = OpenVinoTiles if bundle.network["dimensions"] == 3 else OpenVinoNetwork
    return on_network(kind(*contents, threads, precision), bundle, batch_size)


def convention(bundle: Bundle) -> LabelConvention:
    """The label convention that a bundle states."""
    labels = {int(label): name for label, name in bundle.labels.items()}
    return LabelConvention(bundle.label_convention, labels, bundle.regions)


@functools.cache
def _core() -> Any:
    """The one Core of this process, never let go of.

    A Core's CPU plugin gives the thread that made it an alternate signal stack and unmaps it when it ends. Where two
    overlap and the first ends first, or one ends in another thread, the thread keeps a stack that is gone: the next
    signal that Python handles, Ctrl-C say, is then a segmentation fault.
    """
    import openvino

    return openvino.Core()


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor; elsewhere it takes the hint and computes in float32."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _Requests:
    """Requests to an IR, compiled once per input shape and dtype; shapes long unused are forgotten."""

    def __init__(self, xml: bytes, weights: bytes, threads: int, precision: str = "float32"):
        import openvino

        self._xml = xml
        self._weights = openvino.Tensor(np.frombuffer(weights, np.uint8).copy())
        self._config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # else the workers of a machine all pin themselves to the same cores
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
        }
        self._queues: OrderedDict[tuple, Any] = OrderedDict()

    def _submit(self, inputs: dict[str, np.ndarray], deliver: Callable[[Any], None]) -> None:
        """Begin a request, whose end `deliver` is told of; blocks while all requests are busy."""
        # the inputs are shared, not copied, and live as long as the request holds them as its user data
        image = inputs["image"]
        self._queue(image.shape, image.dtype).start_async(inputs, [deliver, inputs], share_inputs=True)

    def wait(self) -> None:
        """Return when all requests are done; raises what a request raised."""
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

        model = _core().read_model(self._xml, self._weights)
        model.reshape({"image": list(shape)})
        if dtype == np.float32:
            model.input("image").get_node().set_element_type(openvino.Type.f32)
            model.validate_nodes_and_infer_types()
        queue = openvino.AsyncInferQueue(_core().compile_model(model, "CPU", self._config))
        queue.set_callback(_deliver)
        return queue


class OpenVinoNetwork(_Requests):
    """A `slicewise.Network` on an IR."""

    def start(self, image: np.ndarray, constants: Constants, done: Callable[[Outputs], None]) -> None:
        """See `slicewise.Network`."""

        def deliver(request: Any) -> None:
            known = {name for port in request.model_outputs for name in port.get_names()}
            told = {name: request.get_tensor(name).data for name in (*OUTPUTS, PROBABILITY) if name in known}
            done(Outputs(**told))

        self._submit({"image": image, **vars(constants)}, deliver)


class OpenVinoTiles(_Requests):
    """A `tiled.TileNetwork` on an IR."""

    def start(
        self, tiles: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, done: Callable[[np.ndarray], None]
    ) -> None:
        """See `tiled.TileNetwork`."""
        inputs = {"image": tiles, "mean": mean, "inverse_std": inverse_std}
        self._submit(inputs, lambda request: done(request.get_tensor("probability").data))


class OpenVinoWindows(_Requests):
    """An `adopted.WindowNetwork` on the IR of an adopted network."""

    def start(self, windows: np.ndarray, done: Callable[[np.ndarray], None]) -> None:
        """See `adopted.WindowNetwork`."""
        self._submit({"image": windows}, lambda request: done(request.get_tensor("output").data))


def _deliver(request: Any, data: list[Any]) -> None:
    """Tell who waits for it, and let go of them: what they hold may hold the queue, which would never be freed."""
    deliver, data[0] = data[0], None
    deliver(request)


def _in_float32(model: Any, bundle: Bundle) -> Any:
    """The same network computing in float32: which precision it runs in is decided where it runs."""
    if bundle.network["precision"] == "float32":
        return model
    from segpipe.models.unet import build_unet, to_segment

    names = {setting.name for setting in fields(NetworkSettings)}
    settings = NetworkSettings(**{name: value for name, value in bundle.network.items() if name in names})
    twin = build_unet(replace(settings, precision="float32"), len(bundle.modalities), len(bundle.regions))
    twin.set_weights(model.get_weights())
    return to_segment(twin, settings)


def _convert_saved(folder: Path) -> tuple[bytes, bytes]:
    """SavedModel to IR by the runtime's own reader, for `openvino.convert_model` reports each use to a web service."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(_core().read_model(folder))
    steps.input("image").tensor().set_element_type(openvino.Type.i16)
    target = folder / "ir" / "model.xml"
    target.parent.mkdir()
    openvino.save_model(steps.build(), target, compress_to_fp16=False)
    return target.read_bytes(), target.with_suffix(".bin").read_bytes()


def _put(fs: Any, path: str, data: bytes) -> None:
    """Write a file aside and rename it into its place, so that it outlives a power cut on a local disk."""
    folder = path.rpartition("/")[0]
    fs.makedirs(folder, exist_ok=True)
    files_of_disk.replace(fs, path, data)
    files_of_disk.flush_folder(fs, folder)
