"""Keras: U-Nets, losses, and the model directory (the bundle)."""

import os

# Keras 2 is what Orca and Horovod know; TensorFlow reads this when `tf.keras` is first touched, which is later.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
