"""A compiled network is freed when it is let go of: its threads and its memory are not for the life of the process."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as op

from segpipe.core.prediction import ScanInput
from segpipe.runtimes.graph import OUTPUTS, PROBABILITY
from segpipe.runtimes.openvino import OpenVinoNetwork
from segpipe.runtimes.slicewise import SlicewisePredictor

SCAN = ScanInput((5, 16, 16), (5.0,), (2.0,), (1.0,), (0.0,), (0, 5, 0, 16, 0, 16))


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """An IR whose probability is the sigmoid of the normalised image; the other outputs follow from it."""
    inputs = {
        "image": op.parameter([-1, 1, -1, -1], np.int16),
        "mean": op.parameter([1], np.float32),
        "inverse_std": op.parameter([1], np.float32),
        "bounds": op.parameter([4], np.int32),
    }
    image = op.convert(inputs["image"], "f32")
    scaled = op.multiply(op.subtract(image, inputs["mean"]), inputs["inverse_std"])
    probability = op.sigmoid(op.transpose(scaled, np.array([0, 2, 3, 1])))
    labels = op.convert(op.squeeze(op.round(probability), np.array([3])), "u8")
    bounds = op.multiply(op.convert(op.reduce_sum(inputs["bounds"], np.array([0])), "f32"), op.constant(np.float32(0)))
    sums = op.add(op.reduce_sum(probability, np.array([1, 2])), bounds)
    outputs = dict(zip(OUTPUTS, (labels, op.relu(sums), op.abs(sums), op.tanh(sums)), strict=True))
    for name, node in (*inputs.items(), *outputs.items(), (PROBABILITY, probability)):
        node.output(0).set_names({name})
    model = openvino.Model([*outputs.values(), probability], list(inputs.values()), "sigmoid")
    target: Path = tmp_path_factory.mktemp("ir") / "model.xml"
    openvino.serialize(model, target)
    return target.read_bytes(), target.with_suffix(".bin").read_bytes()


def test_a_network_that_is_let_go_of_is_freed(contents: tuple[bytes, bytes]) -> None:
    image = np.random.default_rng(0).integers(0, 10, SCAN.shape).astype(np.int16)
    alive = []
    for _ in range(3):
        network = OpenVinoNetwork(*contents, threads=1)
        predictor = SlicewisePredictor(network, ("lesion",), (16, 16), 8, 2)
        for _ in range(2):
            _, said = predictor.probability(SCAN, [(range(5), [image])])
            np.testing.assert_allclose(said[..., 0], 1 / (1 + np.exp(-(image - 5) / 2)), atol=1e-4)
            found = predictor.segment(SCAN, [(range(5), [image])])
            assert ((found.labels == 1) == (image > 5)).all()
        alive.append(weakref.ref(network))
        del network, predictor
    gc.collect()
    assert [one() for one in alive] == [None] * 3
