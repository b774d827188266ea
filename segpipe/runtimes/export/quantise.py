"""From an IR to one whose convolutions compute in INT8, calibrated on scans of the training."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from segpipe.core.prediction import Sample
from segpipe.errors import ModelError
from segpipe.models.bundle import Bundle
from segpipe.runtimes.network import on_network
from segpipe.runtimes.openvino import core
from segpipe.runtimes.slicewise import Constants, Outputs

_CALIBRATION_REQUESTS = 128
_EXACT = ["Multiply", "Add", "Subtract", "ReduceMean", "ReduceSum", "ReduceMax", "SquaredDifference", "Sigmoid"]


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
    model = core().read_model(contents[0], openvino.Tensor(np.frombuffer(contents[1], np.uint8).copy()))
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
        on_network(recorder, bundle, 1).segment(sample.scan, sample.slices)
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
