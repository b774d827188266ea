"""A second look where in doubt, beside one look and four: Dice of each, and slices a second beside one look.

The network is that of `BENCH_MODEL`, or one trained for a minute, and the same weights do all three. Dice is the mean
over the patients; the scans of the cohort are copies of few of these, and each counts once. What is wanted is a loss of
at most 0.003 against four looks, and a ratio of 1 / 1.6 = 0.625 or more. A network of a minute says little of the loss.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks._real import brats_subjects
from benchmarks._segmenting import COHORT, CORES, bench
from segpipe.core.prediction import Sample
from segpipe.models.bundle import Bundle, save_files
from segpipe.runtimes.contract import PredictorSpec
from segpipe.runtimes.export import export, judge
from segpipe.warehouse.scan_slices import samples

WANTED_LOSS = 0.003
SPLITS = ("train", "validation", "test")
PATIENTS = int(os.environ.get("BENCH_PATIENTS", "6"))


def main() -> None:
    """Segment the same scans in three ways, in turn, and report."""
    with bench("looks") as setup:
        bundle = setup.bundle
        once, mirrored = (seeing(bundle, setup.folder / name, name == "mirrored") for name in ("once", "mirrored"))
        ways = {
            "one look": PredictorSpec(once.url).open(CORES),
            "four looks": PredictorSpec(mirrored.url).pack().open(CORES),
            "in doubt": PredictorSpec(mirrored.url, looks="doubt").pack().open(CORES),
        }
        found = [one for split in SPLITS for one in samples(setup.warehouse, COHORT, split, bundle, 10_000)]
        scans = patients(found)
        trials = judge.race(ways, scans)
        dice = {name: judge.mean_dice(mirrored, trial, scans) for name, trial in trials.items()}
    for name, trial in trials.items():
        told = ", ".join(f"{region} {value:.4f}" for region, value in dice[name].items())
        print(f"{name}: {trial.slices_per_second:.1f} slices/s, Dice {told}", flush=True)
    loss = {region: dice["four looks"][region] - value for region, value in dice["in doubt"].items()}
    worst = max(loss, key=lambda region: loss[region])
    print(
        f"greatest loss against four looks: {loss[worst]:.4f} of {worst}, wanted is at most {WANTED_LOSS}", flush=True
    )
    report("looks", trials["in doubt"].slices_per_second, trials["one look"].slices_per_second, "slices/s")


def seeing(bundle: Bundle, folder: Path, mirror: bool) -> Bundle:
    """The same weights in another directory, looking once or at mirror images, exported."""
    shutil.rmtree(folder, ignore_errors=True)
    weights = (Path(bundle.url) / bundle.weights_file).read_bytes()
    copy = replace(bundle, url=str(folder), network={**bundle.network, "mirror": mirror})
    return export(save_files(copy, {bundle.weights_file: weights}).url)


def patients(scans: list[Sample]) -> list[Sample]:
    """One scan per patient: the cohort's scans are copies of these, one after the other."""
    return [scan for scan in scans if int(scan.scan_id.split(":")[1].rpartition("_")[2]) < len(brats_subjects())][
        :PATIENTS
    ]


if __name__ == "__main__":
    main()
