"""A small warehouse with a model directory, written from the table schemas: what the jobs would leave behind."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segpipe.core.codec import encode
from segpipe.core.intensity import brain_mask, statistics
from segpipe.core.metrics import compare, measure
from segpipe.core.regions import CONVENTIONS, label_counts, to_labels, to_regions
from segpipe.core.splits import SplitRule
from segpipe.readers.generate import subject_id
from segpipe.readers.synthetic import glioma
from segpipe.warehouse import tables

COHORT = "generated"
MODEL_ID = "m-0123456789ab"
BRATS = CONVENTIONS["brats"]
RULE = SplitRule("segpipe", 0.5, 0.2)


@dataclass(frozen=True)
class Case:
    """One generated scan with a prediction that is wrong by `shift` voxels along the row."""

    subject: str
    session: str
    split: str
    modalities: list[str]
    images: list[np.ndarray]
    truth: np.ndarray
    predicted: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    label_convention: str | None = "brats"

    @property
    def scan_id(self) -> str:
        return f"{COHORT}:{self.subject}:{self.session}"


@dataclass(frozen=True)
class Results:
    """Where the small warehouse and its model are, and what went in."""

    warehouse: Path
    model: Path
    cases: list[Case]


def generate(seed: int, number: int, shape: tuple[int, int, int], session: str = "1") -> Case:
    """Case `number`; every fifth prediction is empty, the others grow worse with the number."""
    rng = np.random.default_rng([seed, number])
    scan = glioma(rng, shape)
    regions = to_regions(scan.mask, BRATS)
    shifted = np.roll(regions, (1 + number % 3, number % 4), axis=(1, 2)) * (number % 5 != 3)
    subject = subject_id(seed, number)
    return Case(
        subject=subject,
        session=session,
        split=RULE.of(subject),
        modalities=list(scan.images),
        images=list(scan.images.values()),
        truth=scan.mask,
        predicted=to_labels(shifted, BRATS),
        affine=scan.affine,
        spacing_mm=scan.spacing_mm,
    )


def write_results(folder: Path, cases: list[Case]) -> Results:
    """Tables and a model directory below `folder`."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in tables.TABLES}
    for case in cases:
        brain = brain_mask(case.images)
        rows["scans"].append(_scan(case, brain))
        rows["slices"] += _slices(case, brain)
        rows["predictions"] += _predictions(case)
        rows["segmentations"] += _segmentations(case)
    rows["runs"] = [_run("ingest", None), _run("train", MODEL_ID), _run("segment", MODEL_ID)]
    rows["quarantine"] = [_rejected()]
    rows["series"] = [_series(*one) for one in SERIES]
    for name, table in tables.TABLES.items():
        (folder / "warehouse" / name).mkdir(parents=True)
        path = folder / "warehouse" / name / "part-0.parquet"
        with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
            for group in _row_groups(name, rows[name]):
                writer.write_table(pa.Table.from_pylist(group, table.schema))
    return Results(folder / "warehouse", _model(folder / "model"), cases)


def _row_groups(name: str, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """All rows in one group, but of `slices` a group per scan, as ingest writes them."""
    if name != "slices":
        return [rows]
    return [list(group) for _, group in groupby(rows, key=lambda row: row["scan_id"])]


def _identity(case: Case) -> dict[str, Any]:
    return {"scan_id": case.scan_id, "cohort": COHORT, "subject": case.subject, "split": case.split}


def _scan(case: Case, brain: np.ndarray) -> dict[str, Any]:
    box = [int(edge) for axis in range(3) for edge in _edges(brain, axis)]
    return {
        **_identity(case),
        "session": case.session,
        "split_rule": str(RULE),
        "layout": "brats",
        "label_convention": case.label_convention,
        "modalities": case.modalities,
        "orientation": "SPL",
        "shape": list(case.truth.shape),
        "spacing_mm": list(case.spacing_mm),
        "affine": case.affine.ravel().tolist(),
        "brain_box": box,
        "brain_voxels": int(brain.sum()),
        "resampled_to": None,
        "files": [_file(case, role) for role in (*case.modalities, "mask")],
        "intensity": [
            {"modality": name, **asdict(statistics(image[brain]))}
            for name, image in zip(case.modalities, case.images, strict=True)
        ],
        "label_counts": [{"label": label, "voxels": n} for label, n in label_counts(case.truth).items()],
        "fingerprint": "0" * 64,
        "run_id": "ingest-1",
    }


def _edges(brain: np.ndarray, axis: int) -> tuple[int, int]:
    used = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
    return used[0], used[-1] + 1


def _file(case: Case, role: str) -> dict[str, Any]:
    return {
        "role": role,
        "path": f"{case.subject}/{case.subject}_{role}.nii.gz",
        "bytes": 1,
        "modified": "",
        "sha256": "0" * 64,
        "dtype": "<i2",
        "shape": list(case.truth.T.shape),
        "channel": 0,
        "orientation": "LPS",
        "affine": case.affine.ravel().tolist(),
        "slope": 1.0,
        "inter": 0.0,
        "container": "nifti1",
        "header": b"",
        "extensions": b"",
    }


def _slices(case: Case, brain: np.ndarray) -> list[dict[str, Any]]:
    images = encode(case.images)
    masks = encode([case.truth])
    return [
        {
            **_identity(case),
            "slice_index": index,
            "height": case.truth.shape[1],
            "width": case.truth.shape[2],
            "dtypes": [image.dtype.newbyteorder("<").str for image in case.images],
            "image": images[index].tobytes(),
            "mask_dtype": "|u1",
            "mask": masks[index].tobytes(),
            "foreground_pixels": int((case.truth[index] != 0).sum()),
            "brain_pixels": int(brain[index].sum()),
        }
        for index in range(len(case.truth))
    ]


def _predictions(case: Case) -> list[dict[str, Any]]:
    return [
        {
            "scan_id": case.scan_id,
            "cohort": COHORT,
            "subject": case.subject,
            "model_id": MODEL_ID,
            "slice_index": index,
            "height": plane.shape[0],
            "width": plane.shape[1],
            "mask": plane.tobytes(),
            "region_pixels": [],
            "run_id": "segment-1",
        }
        for index, plane in enumerate(case.predicted)
    ]


def _segmentations(case: Case) -> list[dict[str, Any]]:
    truth, predicted = (to_regions(labels, BRATS).astype(bool) for labels in (case.truth, case.predicted))
    rows = []
    for place, region in enumerate(BRATS.region_names):
        one, other = predicted[..., place], truth[..., place]
        values = _without_nan({**asdict(measure(one, case.affine)), **asdict(compare(one, other, case.affine))})
        rows.append(
            {
                **_identity(case),
                "session": case.session,
                "model_id": MODEL_ID,
                "region": region,
                "mean_probability": None,
                "max_probability": 0.5,
                "qc_flags": [] if one.any() else ["empty_prediction"],
                "run_id": "segment-1",
                **{
                    name: None if isinstance(value, float) and np.isnan(value) else value
                    for name, value in values.items()
                },
            }
        )
    return rows


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}


def _run(job: str, model_id: str | None) -> dict[str, Any]:
    return {
        "run_id": f"{job}-1",
        "job": job,
        "cohort": COHORT,
        "model_id": model_id,
        "started": datetime(2026, 11, 23, 9, 0, tzinfo=UTC),
        "seconds": 12.5,
        "outcome": "done",
        "message": None,
        "parameters": [("cohort", COHORT)],
        "versions": [("segpipe", "0")],
        "stage_seconds": [("read", 8.0), ("write", 4.0)],
        "counts": [("scans", 7)],
    }


def _rejected() -> dict[str, Any]:
    return {
        "run_id": "ingest-1",
        "job": "ingest",
        "cohort": COHORT,
        "scan_id": None,
        "paths": ["Synthetic_07_999/Synthetic_07_999_t1.nii.gz"],
        "reason": "truncated",
        "message": "cut short",
        "fingerprint": "f" * 64,
        "time": datetime(2026, 11, 23, 9, 0, tzinfo=UTC),
    }


SERIES = (
    ("a", "T1", "selected", ""),
    ("b", "T1", "selected", ""),
    ("c", "other", "excluded", "diffusion"),
    ("d", None, "conflict", "words say T2, times say T1"),
)


def _series(series_id: str, role: str | None, decision: str, reason: str) -> dict[str, Any]:
    empty: dict[Any, Any] = {pa.string(): "", pa.float64(): 0.0, pa.int32(): 1, pa.int64(): 1}
    needed = {column.name: empty.get(column.type, []) for column in tables.SERIES.schema if not column.nullable}
    told = {"series_id": series_id, "cohort": COHORT, "role": role, "decision": decision, "reason": reason}
    return needed | told | {"vendor": "ge", "plane": "axial", "dimensions": "2D", "text_hash": f"hash of {series_id}"}


def _model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "bundle.json").write_text(json.dumps({"model_id": MODEL_ID, "label_convention": "brats"}))
    lines = ["epoch,loss,seconds," + ",".join(f"dice_{region}" for region in BRATS.region_names)]
    for epoch in range(1, 13):
        fade = np.exp(-epoch / 4)
        dices = ["" if epoch % 2 else f"{0.92 - fade - 0.05 * place:.4f}" for place in range(3)]
        lines.append(",".join([str(epoch), f"{fade + 0.1:.4f}", "1.5", *dices]))
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    return folder
