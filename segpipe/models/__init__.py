"""Keras: U-Nets, losses, and the model directory (the bundle)."""
