"""A network that was trained elsewhere becomes a bundle: read as data, held against its card, written as an IR.

Nothing that comes with a network is run but its operators, and of these only those that OpenVINO knows by itself: no
Python, no library of custom operators, no file that the network names outside of its own folder.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from segpipe.errors import ModelError
from segpipe.models.bundle import ADOPTED, Bundle, save_files
from segpipe.models.card import Card
from segpipe.storage import url_to_fs

CARD = "card.toml"
_LARGEST_BYTES = 1 << 31  # what protobuf, and so ONNX, holds
_STANDARD_DOMAINS = ("", "ai.onnx")
_STANDARD_OPSET = re.compile(r"opset\d+")
_ENDINGS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid"}
_WHERE = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't", "-- ", "While validating")
"""Lines by which OpenVINO tells where it failed, and not why."""

_MULTIPLES = (2, 4, 8, 16, 32, 64)


def adopt(network_url: str, card: Card, content: dict[str, Any], model_url: str, toml: str) -> Bundle:
    """Make a bundle of a network (.onnx, or .xml with its .bin beside) and its `card`, `content` being what it says.

    The network is written as an IR that takes `image` and gives `output`, and `toml` beside it as `card.toml`. The same
    command again ends in the same bundle. Raises ModelError naming everything in which network and card differ, and
    where `model_url` holds a model that was trained here.
    """
    _check_target(model_url)
    data, weights = _read(network_url)
    model = _loaded(network_url, data, weights)
    batch = _check(model, card, network_url)
    xml, binary = _ir(model, card)
    sha256 = hashlib.sha256(data + (weights or b"")).hexdigest()
    bundle = Bundle(
        url=model_url,
        modalities=card.modalities,
        orientation=card.scan_orientation,
        space=card.scan_space,
        crop=card.patch,
        multiple=1,
        label_convention=card.convention,
        labels={str(label): name for label, name in card.labels.labels.items()},
        regions=dict(card.labels.regions),
        network={"dimensions": card.dimensions, "precision": "float32"},
        training={},
        cohort="",
        split_rule="none",
        subjects={},
        metrics={},
        weights_sha256=sha256,
        normalisation=", ".join(dict.fromkeys(f"{rule.method} over {rule.over}" for rule in card.scalings)),
        threshold=card.decision or 0.5,
        inference={"precision": "float32", "reason": "an adopted network, in the arithmetic that it came in"},
        origin=ADOPTED,
        adopted={"card": content, "format": network_url.rpartition(".")[2].lower(), "sha256": sha256, "batch": batch},
    )
    files = {"openvino/model.xml": xml, "openvino/model.bin": binary, CARD: toml.encode()}
    return save_files(bundle, files)


def _check_target(url: str) -> None:
    fs, folder = url_to_fs(url)
    folder = folder.rstrip("/")
    if fs.exists(f"{folder}/checkpoints"):
        trained = True
    elif fs.exists(f"{folder}/bundle.json"):
        trained = Bundle.load(url).origin != ADOPTED
    else:
        trained = False
    if trained:
        raise ModelError(f"Model {url} was trained here and would be lost", "give another --model")


# ---- reading


def _read(url: str) -> tuple[bytes, bytes | None]:
    """The bytes of a network's file, and those of the weights beside an IR; ModelError if one cannot be had."""
    if not url.endswith((".onnx", ".xml")):
        raise ModelError(
            f"Network {url} is in no known format", "give an .onnx file, or the .xml file of an OpenVINO IR"
        )
    data = _bytes(url)
    return data, _bytes(url[: -len(".xml")] + ".bin") if url.endswith(".xml") else None


def _bytes(url: str, remedy: str = "check the path; an IR is two files, .xml and .bin") -> bytes:
    fs, path = url_to_fs(url)
    try:
        size = fs.size(path)
        if size is not None and size >= _LARGEST_BYTES:
            raise ModelError(
                f"Network file {url} has {size / 1e9:.1f} GB", "networks of less than 2.1 GB can be adopted"
            )
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        raise ModelError(f"Network file {url} is missing", remedy) from None


def _loaded(url: str, data: bytes, weights: bytes | None) -> Any:
    """OpenVINO's model of the bytes, which hold all that is read; ModelError for what it does not know."""
    import openvino

    from segpipe.runtimes.openvino import core

    if weights is None:
        data = _checked_onnx(url, data)
    else:
        _check_ir(url, data)
    try:
        if weights is None:
            return core().read_model(data)
        return core().read_model(data, openvino.Tensor(np.frombuffer(weights, np.uint8).copy()))
    except Exception as error:
        raise ModelError(
            f"Network {url} cannot be read by OpenVINO ({_first_line(error)})",
            "export it again, as plain ONNX of opset 17 or so without custom operators",
        ) from error


def _checked_onnx(url: str, data: bytes) -> bytes:
    """An ONNX file with its external weights, if it has some, taken in; ModelError for custom operators."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelError(
            f"Network {url} is not an ONNX file ({_first_line(error)})", "give the file that was exported"
        ) from None
    if not model.graph.node:
        raise ModelError(f"Network {url} has no operators", "give the file that was exported")
    _check_age(url, model)
    own = {(function.domain, function.name) for function in model.functions}
    strange = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in _nodes(model)
            if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if strange:
        raise ModelError(
            f"Network {url} has operators that are not part of ONNX: {', '.join(strange)}",
            "export it without custom operators, whose code would have to be run",
        )
    external = [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if not external:
        return data
    taken: dict[str, bytes] = {}
    for tensor in external:
        _take_in(url, tensor, taken)
    return bytes(model.SerializeToString())


def _check_age(url: str, model: Any) -> None:
    """ModelError for a version of ONNX in which operators may mean what nobody here knows."""
    import onnx

    used = max((one.version for one in model.opset_import if one.domain in _STANDARD_DOMAINS), default=1)
    for what, version, newest in (
        ("opset", used, onnx.defs.onnx_opset_version()),
        ("format version", model.ir_version, onnx.IR_VERSION),
    ):
        if version > newest:
            raise ModelError(
                f"Network {url} is of ONNX {what} {version}, and {newest} is the newest that is known",
                "export it again with opset 18 or so",
            )


def _take_in(url: str, tensor: Any, taken: dict[str, bytes]) -> None:
    """Put the values of a tensor that stand in another file of the network's folder into the tensor itself."""
    import onnx

    told = {entry.key: entry.value for entry in tensor.external_data}
    name = told.get("location", "")
    if name not in taken:
        taken[name] = _bytes(_beside(url, name), f"copy it from where {url} came from: it holds the weights")
        if sum(map(len, taken.values())) >= _LARGEST_BYTES:
            raise ModelError(
                f"Network {url} has more than 2.1 GB of weights",
                "export it with fewer weights, or with weights of 16 bits",
            )
    try:
        start = int(told.get("offset", 0))
        length = int(told.get("length", len(taken[name]) - start))
    except ValueError:
        start = length = -1
    if start < 0 or length < 0 or start + length > len(taken[name]):
        raise ModelError(f"Network {url} asks for weights beyond the end of {name!r}", "copy both files again")
    tensor.raw_data = taken[name][start : start + length]
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT


def _beside(url: str, name: str) -> str:
    """The URL of a file that a network names, which must lie in the network's own folder, links followed."""
    from segpipe.storage.filesystem import is_local

    fs, path = url_to_fs(url)
    parts = re.split(r"[/\\]", name)
    outside = not name or ".." in parts or parts[0] == "" or ":" in name or "\0" in name
    folder = path.rpartition("/")[0]
    if not outside and is_local(fs):
        outside = not Path(folder, name).resolve().is_relative_to(Path(folder).resolve())
    if outside:
        raise ModelError(
            f"Network {url} names weights outside of its folder: {name!r}",
            "do not trust it; if it is your own, put the weights beside it and export it again",
        )
    return f"{url.rpartition('/')[0]}/{name}" if "/" in url else name


def _nodes(model: Any) -> Iterator[Any]:
    """All operators of an ONNX model, those of its branches, loops and functions too."""
    stack = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                stack += graph.node


def _tensors(model: Any) -> Iterator[Any]:
    """All tensors of an ONNX model: initial values, and those in attributes."""
    graphs = [model.graph]
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs += [attribute.g, *attribute.graphs]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _check_ir(url: str, xml: bytes) -> None:
    """ModelError if the .xml is not XML, or names operators that are not of OpenVINO itself."""
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise ModelError(
            f"Network {url} declares XML entities, which no IR needs",
            "do not use it; get the network again from whoever made it",
        )
    try:
        layers = list(ElementTree.fromstring(xml).iter("layer"))
    except ElementTree.ParseError as error:
        raise ModelError(f"Network {url} is not XML ({error})", "give the .xml file of an OpenVINO IR") from None
    strange = sorted(
        {
            f"{layer.get('version')}.{layer.get('type')}"
            for layer in layers
            if not _STANDARD_OPSET.fullmatch(layer.get("version") or "")
        }
    )
    if not layers:
        raise ModelError(f"Network {url} has no operators", "give the .xml file of an OpenVINO IR")
    if strange:
        raise ModelError(
            f"Network {url} has operators that are not part of OpenVINO: {', '.join(strange)}",
            "convert it without custom operators, whose code would have to be run",
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_WHERE)]
    return (told or lines or [type(error).__name__])[0][:300]


# ---- the card against the network


def _check(model: Any, card: Card, url: str) -> int:
    """Hold a network against its card and leave it with one input and output, `image` and `output`.

    Gives how many windows it takes at once, 0 for any number. Raises ModelError with all that differs.
    """
    inputs, outputs = list(model.inputs), list(model.outputs)
    faults = []
    if len(inputs) != 1:
        names = ", ".join(_name(port) for port in inputs)
        faults.append(f"it has {len(inputs)} inputs ({names}) but must have one, with all modalities as channels")
    chosen = [port for port in outputs if card.output in port.get_names()] if card.output else outputs
    if len(chosen) != 1:
        names = ", ".join(_name(port) for port in outputs)
        faults.append(f"it has the outputs {names}: let `output.name` of the card say which one, not {card.output!r}")
    if not faults:
        faults = _input_faults(inputs[0], card) + _ending_faults(chosen[0], card)
    if not faults:
        inputs[0].get_tensor().set_names({"image"})
        chosen[0].get_tensor().set_names({"output"})
        for port in outputs:
            if port is not chosen[0]:
                model.remove_result(port.get_node())
        faults = _shape_faults(model, card)
    if not faults:
        faults = _answer_faults(model, card)
    if faults:
        raise ModelError(
            f"Network {url} and its card differ: {'; '.join(faults)}",
            "correct the card, which --draft writes if it was made of JSON, or export the network again",
        )
    return 0 if _reshaped(model, card, 2) else 1


def _name(port: Any) -> str:
    return str(next(iter(sorted(port.get_names())), "without a name"))


def _input_faults(port: Any, card: Card) -> list[str]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return []
    wanted = card.dimensions + 2
    if len(shape) != wanted:
        return [
            f"its input {_name(port)} has {len(shape)} axes {shape}, a network of {card.dimensions} dimensions has"
            f" {wanted}: batch, channels and the patch"
        ]
    lengths = [axis.get_length() if axis.is_static else None for axis in shape]
    if lengths[-1] == len(card.modalities) != lengths[1] and lengths[-1] != card.patch[-1]:
        return [f"its input {_name(port)} has its channels last {shape}: export it with channels before the patch"]
    faults = []
    if not port.get_element_type().is_real():
        faults.append(
            f"its input is of {port.get_element_type().get_type_name()}, which holds no scaled intensities:"
            " export it with an input of float32"
        )
    if lengths[1] not in (None, len(card.modalities)):
        names = ", ".join(card.modalities)
        faults.append(f"its input has {lengths[1]} channels, the card names {len(card.modalities)} ({names})")
    patch, fixed = card.patch[3 - card.dimensions :], lengths[2:]
    if any(length not in (None, edge) for length, edge in zip(fixed, patch, strict=True)):
        told = " x ".join("any" if length is None else str(length) for length in fixed)
        faults.append(f"its input is fixed to patches of {told}, `window.patch` says {' x '.join(map(str, patch))}")
    return faults


def _ending_faults(port: Any, card: Card) -> list[str]:
    """What the last operator and the kind of output say against the card."""
    wanted = f"it must have one channel for each of {', '.join(card.channels)}, on the grid of the patch"
    if not port.get_element_type().is_real():
        return [f"its output is of {port.get_element_type().get_type_name()}, labels perhaps: {wanted}"]
    shape = port.get_partial_shape()
    if shape.rank.is_static and len(shape) != card.dimensions + 2:
        return [f"its output has {len(shape)} axes {shape}, not {card.dimensions + 2}: {wanted}"]
    kind = port.get_node().input_value(0).get_node().get_type_name()
    ending = _ENDINGS.get(kind)
    if ending is not None and card.activation != "none":
        return [
            f"it ends in {kind}, so that its output is probabilities already: `output.activation` is none,"
            f" not {card.activation}"
        ]
    channels = None if shape.rank.is_dynamic or len(shape) < 2 or shape[1].is_dynamic else shape[1].get_length()
    if channels is not None and channels != len(card.channels):
        return [f"its output has {channels} channels, the card names {len(card.channels)} ({', '.join(card.channels)})"]
    return []


def _shape_faults(model: Any, card: Card) -> list[str]:
    wanted = [1, len(card.channels), *card.patch[3 - card.dimensions :]]
    found = _reshaped(model, card, 1)
    if found == wanted:
        return []
    if found is not None:
        return [
            f"patches of {_edges(wanted)} give an output of {_edges(found)} with {found[1]} channels,"
            f" but must give the same grid with {wanted[1]}"
        ]
    for multiple in _MULTIPLES:
        rounded = tuple(-(-edge // multiple) * multiple if edge > 1 else edge for edge in card.patch)
        if rounded != card.patch and _reshaped(model, card, 1, rounded) is not None:
            edges = " x ".join(map(str, rounded[3 - card.dimensions :]))
            return [
                f"`window.patch` {_edges(wanted)} does not go through it: its edges must be multiples of {multiple},"
                f" such as {edges}"
            ]
    return [f"`window.patch` {_edges(wanted)} with {len(card.modalities)} channels does not go through it"]


def _edges(shape: list[int]) -> str:
    return " x ".join(map(str, shape[2:]))


def _reshaped(model: Any, card: Card, batch: int, patch: tuple[int, ...] | None = None) -> list[int] | None:
    """The shape of the output for windows of the patch; None where these do not go through the network."""
    shape = [batch, len(card.modalities), *(patch or card.patch)[3 - card.dimensions :]]
    clone = model.clone()
    try:
        clone.reshape({"image": shape})
        found = clone.output("output").get_partial_shape()
    except Exception:
        return None
    if found.is_dynamic or (batch > 1 and found[0].get_length() != batch):
        return None
    return [axis.get_length() for axis in found]


def _answer_faults(model: Any, card: Card) -> list[str]:
    """What patches of noise and of nothing bring to light: operators that OpenVINO cannot run, no probabilities.

    Nothing is what windows beside the head show.
    """
    from segpipe.runtimes.openvino import core

    clone = model.clone()
    clone.reshape({"image": [1, len(card.modalities), *card.patch[3 - card.dimensions :]]})
    noise = np.random.default_rng(0).standard_normal(clone.input("image").shape, np.float32)
    try:
        run = core().compile_model(_float32(clone), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        patches = (("noise", noise), ("zeros", 0 * noise), ("noise again", noise))
        answers = {name: run(patch)["output"].copy() for name, patch in patches}
    except Exception as error:
        return [f"OpenVINO cannot run it ({_first_line(error)})"]
    for name, answer in answers.items():
        if not np.isfinite(answer).all():
            return [f"its output for a patch of {name} is not finite"]
        if card.activation == "none" and (answer.min() < -1e-3 or answer.max() > 1 + 1e-3):
            return [
                f"its output goes from {answer.min():.3g} to {answer.max():.3g} and is not a probability:"
                " `output.activation` is softmax or sigmoid, not none"
            ]
    if _are_probabilities(answers["noise"], card):
        return [f"its output is probabilities already: `output.activation` is none, not {card.activation}"]
    if not np.allclose(answers["noise"], answers["noise again"], rtol=1e-3, atol=1e-3):
        return ["it answers otherwise when it sees the same patch again: export it without operators of chance"]
    return []


def _are_probabilities(answer: np.ndarray, card: Card) -> bool:
    """Whether an activation would be the second one: it ends in a cast behind the first, say."""
    within = answer.min() >= 0 and answer.max() <= 1
    if card.activation == "softmax":
        return bool(within and np.allclose(answer.sum(axis=1), 1, atol=1e-2))
    return bool(within and card.activation == "sigmoid")


def _float32(model: Any) -> Any:
    """The model with an input and an output of float32, whatever it computes in."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input("image").tensor().set_element_type(openvino.Type.f32)
    steps.output("output").tensor().set_element_type(openvino.Type.f32)
    return steps.build()


def _ir(model: Any, card: Card) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory(prefix="segpipe-adopt-") as scratch:
        target = Path(scratch) / "model.xml"
        openvino.save_model(_float32(model), target, compress_to_fp16=False)
        return target.read_bytes(), target.with_suffix(".bin").read_bytes()
