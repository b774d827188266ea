"""The two networks of deepbet as OpenVINO models: 3D LinkNets, rebuilt from the weights that its wheel ships.

deepbet: Fisch et al. 2024, arXiv 2308.07003, MIT licence. LinkNet: Chaurasia and Culurciello 2017, arXiv 1707.03718.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.prepare import shipped, torchscript

PACKAGE = "deepbet"
NAMES = ("bbox_model", "model")
"""The box finder, and the network at full size."""
_EPSILON = 1e-5
_STRIDES = (1, 2, 2, 2)
"""Of the four levels of the encoder; the first keeps what the stem has halved twice."""


@lru_cache(maxsize=4)
def compiled(name: str, edge: int) -> Any:
    """The network `name`, one of `NAMES`, for cubes of `edge` voxels, on one thread, in float32.

    It takes (1, 1, edge, edge, edge) float32 and gives the probabilities of background and brain, (1, 2, …). Raises
    NotFound if the package is not installed.
    """
    import openvino as ov

    options = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    return ov.Core().compile_model(build(torchscript.weights(weights_file(name)), edge), "CPU", options)


def weights_file(name: str) -> Path:
    """Where the package keeps the weights of network `name`. Raises NotFound if they are missing."""
    return shipped.file_of(PACKAGE, "models", f"{name}.pt")


def build(weights: Mapping[str, np.ndarray], edge: int) -> Any:
    """The LinkNet of these weights as an `openvino.Model`."""
    import openvino as ov
    from openvino import opset13 as op

    layers = _Layers(weights)
    image = op.parameter([1, 1, edge, edge, edge], np.float32, name="image")
    level = layers.relu(layers.normal(layers.conv(image, "init.0", stride=2, pad=3)))
    level = op.max_pool(level, [2] * 3, [1] * 3, [1] * 3, [1] * 3, [3] * 3, "floor").output(0)
    encoded = [level]
    for number, stride in enumerate(_STRIDES):
        for block, step in (("block1", stride), ("block2", 1)):
            level = layers.block(level, f"down{number}.{block}", step)
        encoded.append(level)
    for number, stride in enumerate(reversed(_STRIDES)):
        level = layers.up(level, f"up{number}", stride)
        level = op.add(level, encoded[-2 - number])
    level = layers.relu(layers.normal(layers.up_conv(level, "tp_conv1.0", 2, pad=1, more=1)))
    level = layers.relu(layers.normal(layers.conv(level, "conv.0", pad=1)))
    level = layers.up_conv(level, "tp_conv2", 2, pad=0, more=0)
    return ov.Model([op.softmax(level, 1)], [image], "linknet3d")


class _Layers:
    """The layers of a LinkNet, each named for its weights."""

    def __init__(self, weights: Mapping[str, np.ndarray]):
        self._weights = weights

    def conv(self, x: Any, name: str, stride: int = 1, pad: int = 0) -> Any:
        from openvino import opset13 as op

        kernel = op.constant(self._weights[f"{name}.weight"])
        return self._biased(op.convolution(x, kernel, [stride] * 3, [pad] * 3, [pad] * 3, [1] * 3), name)

    def up_conv(self, x: Any, name: str, stride: int, pad: int, more: int) -> Any:
        from openvino import opset13 as op

        kernel = op.constant(self._weights[f"{name}.weight"])
        found = op.convolution_backprop_data(
            x,
            kernel,
            [stride] * 3,
            pads_begin=[pad] * 3,
            pads_end=[pad] * 3,
            dilations=[1] * 3,
            output_padding=[more] * 3,
        )
        return self._biased(found, name)

    def _biased(self, x: Any, name: str) -> Any:
        from openvino import opset13 as op

        bias = self._weights.get(f"{name}.bias")
        return x if bias is None else op.add(x, op.constant(bias.reshape(1, -1, 1, 1, 1)))

    def normal(self, x: Any) -> Any:
        """Instance normalisation without scale and shift."""
        from openvino import opset13 as op

        return op.mvn(x, op.constant(np.array([2, 3, 4], np.int64)), True, _EPSILON, "inside_sqrt")

    def relu(self, x: Any) -> Any:
        from openvino import opset13 as op

        return op.relu(x)

    def block(self, x: Any, name: str, stride: int) -> Any:
        """A residual block of two convolutions."""
        from openvino import opset13 as op

        inner = self.relu(self.normal(self.conv(x, f"{name}.double_conv.0", stride, pad=1)))
        inner = self.normal(self.conv(inner, f"{name}.double_conv.3", pad=1))
        if f"{name}.downsample.0.weight" in self._weights:
            x = self.normal(self.conv(x, f"{name}.downsample.0", stride))
        return self.relu(op.add(inner, x))

    def up(self, x: Any, name: str, stride: int) -> Any:
        x = self.relu(self.normal(self.conv(x, f"{name}.conv1.0")))
        x = self.relu(self.normal(self.up_conv(x, f"{name}.tp_conv.0", stride, pad=1, more=stride - 1)))
        return self.relu(self.normal(self.conv(x, f"{name}.conv2.0")))
