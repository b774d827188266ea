"""Small ONNX networks that a test can compute by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(
    path: Path,
    weights: np.ndarray,
    *,
    dimensions: int = 3,
    activation: str = "",
    normalised: bool = False,
    pooled: int = 0,
    patch: tuple[int, ...] = (),
    added: np.ndarray | None = None,
    external: str = "",
    whole_numbers: bool = False,
    cast: bool = False,
    channels_last: bool = False,
    one_at_a_time: bool = False,
    operator: tuple[str, str] | None = None,
) -> Path:
    """Write a network that mixes channels with `weights` (K, C) voxel by voxel, on any patch or on a fixed one.

    Then, where asked for: what is `added` (K, *patch); instance normalisation; a way over a grid that is 2 ** `pooled`
    times coarser, whose answer is dropped, but whose edges must fit; an `activation`; a `cast` to float16 and back; a
    custom `operator`, domain and name. `external` is where the weights are said to stand. The input is uint8 where it
    is to be `whole_numbers`, and has its channels behind the patch where these are to be `channels_last`. Without free
    axes for the batch inside it takes windows `one_at_a_time`.
    """
    classes, channels = weights.shape
    axes = list(patch) or [f"d{axis}" for axis in range(dimensions)]
    kernel = weights.reshape(classes, channels, *[1] * dimensions).astype(np.float32)
    values, made = [numpy_helper.from_array(kernel, "w")], [helper.make_node("Conv", ["x", "w"], ["0"])]
    first = helper.make_node("Cast", ["x"], ["0"], to=TensorProto.FLOAT) if whole_numbers else None
    if channels_last:
        first = helper.make_node("Transpose", ["x"], ["0"], perm=[0, dimensions + 1, *range(1, dimensions + 1)])
    if first is not None:
        made = [first, helper.make_node("Conv", ["0", "w"], ["1"])]

    def then(kind: str, *others: str, **options: Any) -> None:
        made.append(helper.make_node(kind, [str(len(made) - 1), *others], [str(len(made))], **options))

    if added is not None:
        values.append(numpy_helper.from_array(added.astype(np.float32), "added"))
        then("Add", "added")
    if normalised:
        values += [
            numpy_helper.from_array(np.full(classes, one, np.float32), name) for name, one in (("a", 1), ("b", 0))
        ]
        then("InstanceNormalization", "a", "b")
    if pooled:
        fine, step = str(len(made) - 1), [2**pooled] * dimensions
        values.append(numpy_helper.from_array(np.array([1, 1, *step], np.float32), "scales"))
        then("MaxPool", kernel_shape=step, strides=step)
        then("Resize", "", "scales", mode="nearest")
        then("Concat", fine, axis=1)
        values.append(numpy_helper.from_array(np.arange(classes, 2 * classes), "second"))
        then("Gather", "second", axis=1)
    if activation:
        then(activation, **({"axis": 1} if activation == "Softmax" else {}))
    if one_at_a_time:
        values.append(numpy_helper.from_array(np.array([1, classes, *patch], np.int64), "shape"))
        then("Reshape", "shape")
    if cast:
        then("Cast", to=TensorProto.FLOAT16)
        then("Cast", to=TensorProto.FLOAT)
    if operator:
        then(operator[1], domain=operator[0])
    made[-1].output[0] = "y"
    kind = TensorProto.UINT8 if whole_numbers else TensorProto.FLOAT
    graph = helper.make_graph(
        made,
        "small",
        [helper.make_tensor_value_info("x", kind, ["n", *([*axes, channels] if channels_last else [channels, *axes])])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes, *axes])],
        values,
    )
    domains = [helper.make_opsetid("", 18), *([helper.make_opsetid(operator[0], 1)] if operator else [])]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    if external:
        tensor = model.graph.initializer[0]
        onnx.external_data_helper.set_external_data(tensor, external)
        (path.parent / "weights.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path
