"""Dice on real patients that the network did not see: three-fold cross-validation by patient over BraTS 2021.

Every fold ingests the six real scans, trains on four of them with the default settings, and segments the other two; no
patient is ever in both, and nothing is chosen by looking at those two. They are segmented once more by one look at a
slice. The reference is a mean whole-tumour Dice of 0.75, with the default settings. Takes up to half an hour a fold on
two cores; what SEGPIPE_BENCH_FOLDER holds of an interrupted run is used.
"""

import os
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from benchmarks import report
from benchmarks._real import brats_subjects
from segpipe.core.splits import SplitRule
from segpipe.models.bundle import Bundle
from segpipe.warehouse.store import Warehouse

FOLDS = 3
GOAL = 0.75
ONE_LOOK = ("--no-mirror",)
REGIONS = ("whole_tumour", "tumour_core", "enhancing_tumour")
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Train and judge every fold, and report the mean over all patients."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        folder = Path(os.environ.get("SEGPIPE_BENCH_FOLDER", scratch))
        for number in range(FOLDS):
            for way, rows in _fold(number, folder / f"fold{number}").items():
                for row in rows:
                    print(f"  {way}: {row['subject']} {row['region']}: {_text(row['dice'])}")
                    if row["dice"] is not None:
                        scores[way, row["region"]].append(row["dice"])
    for (way, region), found in scores.items():
        print(f"mean Dice of {region}, {way}: {fmean(found):.3f} over {len(found)} patients that have it")
    report("accuracy", fmean(scores["default", REGIONS[0]]), GOAL, "Dice")


def _fold(number: int, folder: Path) -> dict[str, list[dict]]:
    """Rows of `segmentations` of the fold's test patients, with the default settings and by one look."""
    subjects = brats_subjects()
    rule = fold_rule([path.name for path in subjects], number)
    tables, model = str(folder / "tables"), str(folder / "model")
    here = ("--warehouse", tables, "--cohort", "real")
    shares = ("--train-fraction", str(rule.train), "--validation-fraction", str(rule.validation))
    start = time.perf_counter()
    _job("ingest", "--source", str(subjects[0].parent), *here, "--split-salt", rule.salt, *shares)
    _job("train", *here, "--model", model)
    print(f"fold {number}: ingest and training took {(time.perf_counter() - start) / 60:.1f} min")
    found = {"default": _segmented(tables, here, model)}
    _job("train", *here, "--model", model, *ONE_LOOK)
    return found | {" ".join(ONE_LOOK): _segmented(tables, here, model)}


def _segmented(tables: str, here: tuple[str, ...], model: str) -> list[dict]:
    """Rows of `segmentations` of this model on test patients, by subject and region."""
    _job("export", "--model", model)
    _job("segment", *here, "--model", model)
    _job("evaluate", *here, "--model", model)
    columns = ["subject", "region", "split", "dice", "model_id"]
    rows = Warehouse(tables).table("segmentations").to_table(columns).to_pylist()
    model_id = Bundle.load(model).model_id
    found = [row for row in rows if row["split"] == "test" and row["model_id"] == model_id]
    return sorted(found, key=lambda row: (row["subject"], REGIONS.index(row["region"])))


def fold_rule(subjects: list[str], number: int) -> SplitRule:
    """The split rule that tests every FOLDS-th subject from `number` on, and trains on all others."""
    tested = set(subjects[number::FOLDS])
    salts = (f"fold-{number}-{attempt}" for attempt in range(1_000_000))
    rules = (SplitRule(salt, 1 - 1 / FOLDS, 0.0) for salt in salts)
    return next(rule for rule in rules if {one for one in subjects if rule.of(one) == "test"} == tested)


def _job(*words: str) -> None:
    subprocess.run([ROOT / "spark-submit.sh", *words], check=True)


def _text(dice: float | None) -> str:
    return "no such voxel in truth and prediction" if dice is None else f"{dice:.3f}"
