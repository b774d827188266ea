"""Images/s of two Horovod workers with one thread each, fed from Parquet, beside twice one plain Keras process.

The reference runs alone, with one thread, and is fed from memory; both train the default network on the slices of the
real scans, with eight slices a step and worker. Rates are those after the first epoch.
"""

from benchmarks import report
from benchmarks._training import beside_plain_keras


def main() -> None:
    """Measure both in turn and report the medians."""
    report("train-horovod", *beside_plain_keras("horovod"), "images/s")
