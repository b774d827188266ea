"""Keras: U-Nets, losses, and the model directory (the bundle)."""

import os

TENSORFLOW_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"}
"""What every process must know before it imports TensorFlow.

Keras 2 is what Orca and Horovod know. oneDNN, left to itself, TensorFlow switches on for processors with AVX-512 VNNI
alone; with AVX2 a training step takes two thirds of the time with it.
"""

for _name, _value in TENSORFLOW_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
