"""Images/s of the feed alone on one core, augmentation included, beside what a training step with one thread eats."""

import statistics
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks._training import ROUNDS, measured, tables


def main() -> None:
    """Measure both in turn and report the medians."""
    ours, reference = [], []
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        url = tables(Path(scratch))
        for number in range(ROUNDS):
            fed, eaten = measured("feed", url), measured("plain", url)["images_per_second"]
            told = f"{fed['first_images_per_second']:.1f} in the first epoch, {fed['images_per_second']:.1f} then"
            print(f"round {number + 1}: feed {told}; the step eats {eaten:.1f} images/s", flush=True)
            ours.append(fed["images_per_second"])
            reference.append(eaten)
    report("feed", statistics.median(ours), statistics.median(reference), "images/s")
