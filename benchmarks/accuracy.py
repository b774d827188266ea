"""Dice on real patients that the network did not see: three-fold cross-validation by patient over sixteen of them.

Every fold ingests the sixteen real scans, trains with the default settings on those of two thirds of the patients, of
whom one or two validate, and segments the others. No patient is ever in two splits, and what `export` chooses, it
chooses on patients who are not tested. Told per patient and region: Dice, what is false and what is missed in ml,
components, HD95, and Dice lesion by lesion, in which a false lesion counts 0. The reference is a mean whole-tumour Dice
of 0.85.

A fold takes up to 45 minutes on two quiet cores. `FOLD=k` (0, 1 or 2) does one, `SEED=n` trains with another seed, to
tell what chance does; `OPTIONS="--dimensions 2"` gives `train` other settings, in a folder of their own, and
`PATIENTS=n` learns from n patients alone, who are among those of a greater n. What is there of an interrupted run, in
build/bench-accuracy or SEGPIPE_BENCH_FOLDER, is used, and the report is over all folds that are done.
"""

import hashlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import report
from benchmarks._real import labelled_subjects, link_or_copy
from segpipe.core.splits import SplitRule
from segpipe.errors import UsageError
from segpipe.models.bundle import Bundle
from segpipe.warehouse.store import Store

FOLDS = 3
GOAL = 0.85
SHARES = 0.56, 0.11
REGIONS = ("whole_tumour", "tumour_core", "enhancing_tumour")
MEASURES = ("dice", "false_ml", "missed_ml", "components", "hd95_mm", "lesion_dice")
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Train and judge the folds that are asked for, and report the mean over all patients that were judged."""
    seed, options = int(os.environ.get("SEED", "0")), train_options()
    patients = _patients()
    few = f"-{patients}patients" if patients else ""
    folder = Path(os.environ.get("SEGPIPE_BENCH_FOLDER", ROOT / "build" / "bench-accuracy")).resolve()
    models = folder / f"seed{seed}{_suffix(options)}{few}"
    for number in _folds():
        if not (models / f"fold{number}.json").exists():
            asked = ["--seed", str(seed), *options]
            rows = _fold(number, folder / f"fold{number}{few}", models / f"fold{number}", asked, patients)
            (models / f"fold{number}.json").write_text(json.dumps(rows, indent=1))
    done = [path for number in range(FOLDS) if (path := models / f"fold{number}.json").exists()]
    rows = [row for path in done for row in json.loads(path.read_text())]
    print("\n".join(table(rows)))
    whole = [row["dice"] for row in rows if row["region"] == REGIONS[0] and row["dice"] is not None]
    learnt = f"{patients} patients learnt from, " if patients else ""
    print(f"{len(done)} of {FOLDS} folds, {learnt}seed {seed}, {' '.join(options) or 'default settings'}")
    report("accuracy", fmean(whole), GOAL, "Dice")


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines: every patient and region, then the mean of each region, over the patients for whom a measure is defined.

    >>> row = {"subject": "a", "region": "whole_tumour", **dict.fromkeys(MEASURES, 1.0), "hd95_mm": None}
    >>> print(*[" ".join(line.split()) for line in table([row])], sep="\\n")
    patient region dice false_ml missed_ml components hd95_mm lesion_dice
    a whole_tumour 1.000 1.000 1.000 1.000 – 1.000
    mean whole_tumour 1.000 1.000 1.000 1.000 – 1.000
    """
    yield _line("patient", "region", *MEASURES)
    for row in rows:
        yield _line(row["subject"], row["region"], *(_text(row[name]) for name in MEASURES))
    for region in REGIONS:
        of_region = [row for row in rows if row["region"] == region]
        if of_region:
            yield _line("mean", region, *(_text(_mean([row[name] for row in of_region])) for name in MEASURES))


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """What is told of a row of `segmentations`; a measure is None if it is undefined."""
    voxels, truth = row["voxels"], row["truth_voxels"]
    voxel_ml = row["volume_ml"] / voxels if voxels else row["truth_volume_ml"] / truth if truth else 0.0
    lesions = [score["dice"] for score in row["lesion_scores"]] + [0.0] * len(row["false_lesions"])
    return {
        "subject": row["subject"],
        "region": row["region"],
        "dice": row["dice"],
        "false_ml": row["fp"] * voxel_ml,
        "missed_ml": row["fn"] * voxel_ml,
        "components": row["lesions"],
        "hd95_mm": row["hd95_mm"],
        "lesion_dice": _mean(lesions),
    }


def fold_rule(subjects: Sequence[str], number: int) -> SplitRule:
    """The split rule that tests every FOLDS-th subject from `number` on; one or two of the others validate."""
    tested = set(subjects[number::FOLDS])
    rules = (SplitRule(f"fold-{number}-{attempt}", *SHARES) for attempt in count())

    def fits(rule: SplitRule) -> bool:
        return (
            all((rule.of(one) == "test") == (one in tested) for one in subjects)
            and 1 <= sum(rule.of(one) == "validation" for one in subjects) <= 2
        )

    return next(rule for rule in rules if fits(rule))


def kept(subjects: Sequence[Path], rule: SplitRule, patients: int | None) -> list[Path]:
    """The folders of all subjects, or of as many of the training split as `patients` says, and of the others.

    Raises UsageError if there are fewer.
    """
    learnt = sorted(
        (path for path in subjects if rule.of(path.name) == "train"),
        key=lambda path: hashlib.sha256(path.name.encode()).hexdigest(),
    )
    if patients is not None and patients > len(learnt):
        raise UsageError(f"A fold learns from {len(learnt)} patients, not {patients}", "give a smaller PATIENTS")
    left_out = set(learnt[patients:]) if patients else set()
    return [path for path in subjects if path not in left_out]


def _sources(folder: Path, subjects: Sequence[Path], rule: SplitRule, patients: int | None) -> list[Path]:
    """The archives to ingest: the real ones, or such of links to the files of those subjects who are kept."""
    if patients is None:
        return sorted({path.parent for path in subjects})
    for subject in kept(subjects, rule, patients):
        copy = folder / "source" / subject.parent.name / subject.name
        copy.mkdir(parents=True, exist_ok=True)
        for path in subject.glob("*.nii.gz"):
            link_or_copy(path, copy / path.name)
    return sorted((folder / "source").iterdir())


def _fold(number: int, folder: Path, model: Path, options: Sequence[str], patients: int | None) -> list[dict[str, Any]]:
    """What is told of the fold's test patients."""
    subjects = labelled_subjects()
    rule = fold_rule(sorted(path.name for path in subjects), number)
    tables = str(folder / "tables")
    here = ("--warehouse", tables, "--cohort", "real")
    shares = ("--train-fraction", str(rule.train), "--validation-fraction", str(rule.validation))
    for source in _sources(folder, subjects, rule, patients):
        _job("ingest", "--source", str(source), *here, "--split-salt", rule.salt, *shares)
    start = time.perf_counter()
    _job("train", *here, "--model", str(model), *options)
    print(f"fold {number}: training took {(time.perf_counter() - start) / 60:.1f} min", flush=True)
    _job("export", "--model", str(model), "--warehouse", tables)
    start = time.perf_counter()
    _job("segment", *here, "--model", str(model))
    print(f"fold {number}: segmenting took {time.perf_counter() - start:.0f} s", flush=True)
    rows = Store(tables).table("segmentations").to_table().to_pylist()
    model_id = Bundle.load(str(model)).model_id
    found = [judged(row) for row in rows if row["split"] == "test" and row["model_id"] == model_id]
    return sorted(found, key=lambda row: (row["subject"], REGIONS.index(row["region"])))


def _folds() -> list[int]:
    asked = os.environ.get("FOLD")
    if asked is None:
        return list(range(FOLDS))
    if asked not in map(str, range(FOLDS)):
        raise UsageError(f"There is no fold {asked}", f"give FOLD=0 to FOLD={FOLDS - 1}")
    return [int(asked)]


def train_options() -> list[str]:
    """What `train` is given beside the seed. A second seed the job would refuse, but only when a fold is ingested."""
    options = shlex.split(os.environ.get("OPTIONS", ""))
    if any(word.split("=")[0] == "--seed" for word in options):
        raise UsageError("OPTIONS gives --seed", "give SEED=n")
    return options


def _patients() -> int | None:
    asked = os.environ.get("PATIENTS")
    if asked is None:
        return None
    if not asked.isdecimal() or not int(asked):
        raise UsageError(f"PATIENTS is {asked}", "give the number of patients to learn from, at least 1")
    return int(asked)


def _suffix(options: Sequence[str]) -> str:
    return "-" + hashlib.sha256(" ".join(options).encode()).hexdigest()[:8] if options else ""


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def _line(patient: str, region: str, *cells: str) -> str:
    return "  ".join([patient.ljust(22), region.ljust(16), *(cell.rjust(11) for cell in cells)])


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _job(*words: str) -> None:
    subprocess.run([ROOT / "spark-submit.sh", *words], check=True)


if __name__ == "__main__":
    main()
