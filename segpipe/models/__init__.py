"""Keras: U-Nets, losses, and the model directory (the bundle)."""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

TENSORFLOW_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"}
"""What every process must know before it imports TensorFlow.

Keras 2 is what Orca and Horovod know. oneDNN, left to itself, TensorFlow switches on for processors with AVX-512 VNNI
alone; with AVX2 a training step takes two thirds of the time with it.
"""

for _name, _value in TENSORFLOW_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import TensorFlow, and what imports it, in here: without looking for garbage, of which an import makes none.

    The looking takes a fifth of the import and, as all that it made would be looked through again and again, a fifth of
    tracing a network.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
