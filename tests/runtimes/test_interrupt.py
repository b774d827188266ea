"""Ctrl-C after networks were run and let go of."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from segpipe.core.prediction import ScanInput
from segpipe.models.bundle import Bundle
from segpipe.runtimes.contract import PredictorSpec

INTERRUPTED = """
import os, pickle, signal, sys
from segpipe.runtimes.openvino import predictor
with open(sys.argv[1], "rb") as file:
    packed, scan, channels = pickle.load(file)
first, second = predictor(packed, 1), predictor(packed, 1)
for one in (first, second):
    one.segment(scan, [(range(len(channels[0])), channels)])
del one, first  # before the second, as the locals of a function end
del second
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs with SIGINT ignored
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.sigtimedwait([], 60)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_after_two_networks_at_once(
    exported: Callable[..., Bundle], scan: tuple[list[np.ndarray], ScanInput], tmp_path: Path
) -> None:
    """In a process of its own, which a segmentation fault would end."""
    packed = PredictorSpec(exported().url, precision="float32").pack()
    (tmp_path / "inputs").write_bytes(pickle.dumps((packed, scan[1], scan[0])))
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "inputs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
