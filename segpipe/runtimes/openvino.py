"""OpenVINO as a runtime: the IR in a bundle, which `segpipe.runtimes.export` puts there, as a predictor."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.core.prediction import Predictor
from segpipe.errors import ModelError
from segpipe.models.bundle import ADOPTED, SLICES, SLICES_TRAINED, Bundle
from segpipe.runtimes.graph import OUTPUTS, PROBABILITY
from segpipe.runtimes.looks import doubtful
from segpipe.runtimes.network import convention, on_network, together
from segpipe.runtimes.slicewise import Constants, Outputs, SlicewisePredictor

if TYPE_CHECKING:
    from segpipe.runtimes.contract import PackedPredictor

FILES = ("openvino/model.xml", "openvino/model.bin")
SLICES_FILES = (SLICES_TRAINED[0], *(f"{SLICES}/{name}" for name in FILES))
"""The same of the 2D network that answers together with a 3D one, which tells its probabilities, and its index."""

INT8_FILES = ("openvino-int8/model.xml", "openvino-int8/model.bin")
LOOK_FILES = ("openvino-look/model.xml", "openvino-look/model.bin")
"""A network that sees mirror images, as one that looks once and tells its probabilities; see `runtimes.looks`."""

_COMPILED_SHAPES = 6
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}  # of INT8: for what is not quantised


def sees_mirror_images(bundle: Bundle) -> bool:
    """Whether a network of slices looks at mirror images too, so that it can look once, and again where in doubt."""
    return bundle.network["dimensions"] != 3 and bool(bundle.network.get("mirror"))


def _looks_alike(bundle: Bundle) -> str:
    """Why a model cannot look where in doubt; empty if it can."""
    if bundle.origin == ADOPTED:
        return "looks everywhere as its card says"
    if bundle.network["dimensions"] == 3:
        often = "four times" if bundle.network.get("mirror") else "once"
        return f"sees volumes and no slices, and looks at all of each {often}"
    return "" if sees_mirror_images(bundle) else "looks at every slice once anyway"


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
            problem = f"Model {bundle.url} in INT8 looks at every slice equally often, so --looks doubt does not apply"
            raise ModelError(problem, "give another --precision")
        return LOOK_FILES, "run `export` on it with this version"
    if precision == "int8":
        return (
            INT8_FILES,
            "run `export --int8` on it, which publishes an INT8 model only where it is faster and as good",
        )
    return ir_files(bundle), "run `export` on it"


def ir_files(bundle: Bundle) -> tuple[str, ...]:
    """The files whose contents `on_ir` takes."""
    return (*FILES, *SLICES_FILES) if bundle.has_slices else FILES


def predictor(packed: PackedPredictor, threads: int) -> Predictor:
    """The predictor of a bundle's IR."""
    bundle, spec = packed.bundle, packed.spec
    contents = tuple(packed.files[name] for name in files(bundle, spec.precision, spec.looks)[0])
    found = on_ir(contents, bundle, threads, spec.precision, spec.batch_size)
    if spec.looks == "doubt":
        assert isinstance(found, SlicewisePredictor)  # `files` has seen to it
        return doubtful(found, convention(bundle), bundle.cut)
    return found


def on_ir(contents: tuple[bytes, ...], bundle: Bundle, threads: int, precision: str, batch_size: int) -> Predictor:
    """The predictor of an IR, the bytes of its .xml and .bin; of two that answer together, those of `ir_files`."""
    if bundle.has_slices:
        xml, weights, index, *slices = contents
        alone = replace(bundle, network={**bundle.network, "beside": None})
        pairs = (((xml, weights), alone), (tuple(slices), bundle.slices(index)))
        return together(*(on_ir(ir, one, threads, precision, batch_size) for ir, one in pairs))
    xml, weights = contents
    if bundle.origin == ADOPTED:
        from segpipe.runtimes.adopted import adopted_predictor

        return adopted_predictor(OpenVinoWindows(xml, weights, threads, precision), bundle, batch_size)
    kind = OpenVinoTiles if bundle.network["dimensions"] == 3 else OpenVinoNetwork
    return on_network(kind(xml, weights, threads, precision), bundle, batch_size)


@functools.cache
def core() -> Any:
    """The one Core of this process, never let go of.

    A Core's CPU plugin gives the thread that made it an alternate signal stack and unmaps it when it ends. Where two
    overlap and the first ends first, or one ends in another thread, the thread keeps a stack that is gone: the next
    signal that Python handles, Ctrl-C say, is then a segmentation fault.
    """
    import openvino

    return openvino.Core()


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor; elsewhere it takes the hint and computes in float32."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


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

        model = core().read_model(self._xml, self._weights)
        model.reshape({"image": list(shape)})
        if dtype == np.float32:
            model.input("image").get_node().set_element_type(openvino.Type.f32)
            model.validate_nodes_and_infer_types()
        queue = openvino.AsyncInferQueue(core().compile_model(model, "CPU", self._config))
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
