"""From a trained Keras model to what segment runs, inside its bundle: converted, measured, quantised, published.

`publish` is the whole way; `convert`, `decisions`, `judge` and `quantise` are its steps.
"""

from segpipe.runtimes.export.publish import export

__all__ = ["export"]
