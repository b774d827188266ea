"""One Spark task of a segmentation: some scans, from their slices to committed predictions and measures."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import segpipe
from segpipe.core.prediction import Model, Predictor, Segmented
from segpipe.core.regions import CONVENTIONS
from segpipe.errors import BadInput, Reason
from segpipe.spark.measures import region_rows
from segpipe.warehouse import parts
from segpipe.warehouse.lock import Fence
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.scan_slices import ScanPlace, ScanSlices, scan_input, scan_rows
from segpipe.warehouse.store import Warehouse
from segpipe.warehouse.tables import PREDICTIONS, QUARANTINE, SEGMENTATIONS

_GROUP_BYTES = 16_000_000


@dataclass(frozen=True)
class Job:
    """What every task of a run must know."""

    warehouse: str
    cohort: str
    model_id: str
    modalities: tuple[str, ...]
    orientation: str
    label_convention: str
    fence: Fence

    @classmethod
    def of(cls, warehouse: str, cohort: str, model: Model, fence: Fence) -> Job:
        """The job of running a model over a cohort."""
        return cls(
            warehouse, cohort, model.model_id, tuple(model.modalities), model.orientation, model.label_convention, fence
        )

    @property
    def run_id(self) -> str:
        """The run that does it."""
        return self.fence.run_id

    def fit(self, scan_id: str, modalities: Sequence[str], orientation: str) -> None:
        """Raise BadInput where the model cannot take a scan."""
        missing = [name for name in self.modalities if name not in modalities]
        if missing:
            raise BadInput(
                Reason.MISSING_MODALITY,
                f"Scan {scan_id} lacks {', '.join(missing)}, which model {self.model_id} looks at",
                "segment it with a model that was trained on what it has",
            )
        if orientation != self.orientation:
            raise BadInput(
                Reason.DOES_NOT_FIT_MODEL,
                f"Scan {scan_id} has slices along {orientation}, model {self.model_id} wants {self.orientation}",
                "ingest it with the --axis that the model was trained on",
            )

    def bad_fingerprint(self, scan_fingerprint: str) -> str:
        """What must be equal for a scan to be as unfit again: scan, model and this version."""
        content = "\0".join((scan_fingerprint, self.model_id, segpipe.__version__))
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class SegmentTask:
    """The scans to segment into one part; `replaces` says that the part exists and keeps its other scans."""

    name: str
    scans: tuple[ScanPlace, ...]
    replaces: bool = False


@dataclass(frozen=True)
class ScanOutcome:
    """What became of a scan: `reason` is that of its quarantine, `slices` are its own, seconds where time went."""

    scan_id: str
    slices: int = 0
    seconds: float = 0.0
    infer_seconds: float = 0.0
    reason: str | None = None


def segment_part(task: SegmentTask, job: Job, predictor: Predictor) -> list[ScanOutcome]:
    """Segment the scans of a part and commit them, with one scan in memory at a time.

    What an earlier attempt of the same run has committed is not done again. Raises WarehouseBusy where the run has lost
    its lock; a scan that cannot be segmented becomes a row of `quarantine`.
    """
    warehouse = Warehouse(job.warehouse)
    parts.settle_attempts(warehouse, job.run_id, task.name)
    done = _committed(warehouse, task, job)
    if done:
        return [ScanOutcome(scan.scan_id) for scan in task.scans if scan.scan_id in done]
    outcomes: list[ScanOutcome] = []
    rejected: list[dict[str, Any]] = []
    with PartWriter(warehouse, (PREDICTIONS, SEGMENTATIONS), task.name, job.run_id, job.fence) as part:
        for place, scan in _with_rows(warehouse, task.scans):
            try:
                outcomes.append(_segment_scan(warehouse, part, place, scan, job, predictor))
            except BadInput as error:
                outcomes.append(ScanOutcome(place.scan_id, reason=str(error.reason)))
                rejected.append(quarantine_row(job, scan, error))
        if task.replaces:
            _copy_others(part, warehouse, {one.scan_id for one in outcomes if one.reason is None})
        write_quarantine(job, f"{job.run_id}-{task.name}", rejected)
    return outcomes


def quarantine_row(job: Job, scan: dict[str, Any], error: BadInput) -> dict[str, Any]:
    """A row of `quarantine` for a scan that this model cannot segment."""
    return {
        "run_id": job.run_id,
        "job": "segment",
        "cohort": job.cohort,
        "scan_id": scan["scan_id"],
        "paths": [file["path"] for file in scan["files"]],
        "reason": str(error.reason),
        "message": str(error),
        "fingerprint": job.bad_fingerprint(scan["fingerprint"]),
        "time": datetime.now(UTC),
    }


def write_quarantine(job: Job, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Commit rows of `quarantine` as a part of this name; none where there are no rows."""
    if rows:
        with PartWriter(Warehouse(job.warehouse), (QUARANTINE,), name, job.run_id, job.fence) as part:
            part.write(QUARANTINE.name, pa.Table.from_pylist(list(rows), QUARANTINE.schema))


def _with_rows(warehouse: Warehouse, places: Sequence[ScanPlace]) -> Iterator[tuple[ScanPlace, dict[str, Any]]]:
    """Each scan with its row of `scans`, read part by part."""
    by_part: defaultdict[str, list[ScanPlace]] = defaultdict(list)
    for place in places:
        by_part[place.part].append(place)
    for part, members in by_part.items():
        rows = scan_rows(warehouse, part, [place.scan_id for place in members])
        yield from ((place, rows[place.scan_id]) for place in members)


def _segment_scan(
    warehouse: Warehouse, part: PartWriter, place: ScanPlace, scan: dict[str, Any], job: Job, predictor: Predictor
) -> ScanOutcome:
    start = time.perf_counter()
    job.fit(place.scan_id, scan["modalities"], scan["orientation"])
    source = ScanSlices(warehouse, place, scan, job.modalities)
    found = predictor.segment(scan_input(scan, job.modalities), source)
    inferred = time.perf_counter()
    for rows in _prediction_rows(scan, found, job):
        part.write(PREDICTIONS.name, rows)
    part.write(SEGMENTATIONS.name, _measure(scan, found, source.truth, job))
    return ScanOutcome(place.scan_id, scan["shape"][0], time.perf_counter() - start, inferred - start)


def _prediction_rows(scan: dict[str, Any], found: Segmented, job: Job) -> Iterator[pa.RecordBatch]:
    """Rows of `predictions`, a bounded number of bytes at a time."""
    slices, height, width = found.labels.shape
    step = max(1, _GROUP_BYTES // (height * width))
    pixels = _region_pixels(found.labels, job.label_convention)
    for start in range(0, slices, step):
        stop = min(start + step, slices)
        count = stop - start
        constant = {name: scan[name] for name in ("scan_id", "cohort", "subject")}
        constant |= {"model_id": job.model_id, "label_convention": job.label_convention, "run_id": job.run_id}
        columns = {
            **{name: pa.repeat(pa.scalar(value, pa.string()), count) for name, value in constant.items()},
            "slice_index": pa.array(np.arange(start, stop, dtype=np.int32)),
            "height": pa.repeat(pa.scalar(height, pa.int32()), count),
            "width": pa.repeat(pa.scalar(width, pa.int32()), count),
            "mask": pa.array([plane.tobytes() for plane in found.labels[start:stop]], pa.binary()),
            "region_pixels": pa.array(pixels[start:stop], PREDICTIONS.schema.field("region_pixels").type),
        }
        yield pa.RecordBatch.from_arrays(
            [columns[name] for name in PREDICTIONS.schema.names], schema=PREDICTIONS.schema
        )


def _region_pixels(labels: np.ndarray, convention: str) -> list[list[dict[str, Any]]]:
    """Pixels of each region, slice by slice."""
    regions = CONVENTIONS[convention].regions
    numbers = [np.bincount(plane.ravel(), minlength=256) for plane in labels]
    return [
        [{"region": region, "pixels": int(number[list(members)].sum())} for region, members in regions.items()]
        for number in numbers
    ]


def _measure(scan: dict[str, Any], found: Segmented, truth: np.ndarray | None, job: Job) -> pa.Table:
    rows = region_rows(scan, found.labels, job.label_convention, truth, found.mean_probability, found.max_probability)
    named = [row | {"model_id": job.model_id, "run_id": job.run_id} for row in rows]
    return pa.Table.from_pylist(named, SEGMENTATIONS.schema)


def _committed(warehouse: Warehouse, task: SegmentTask, job: Job) -> set[str]:
    """The scans of this part that an earlier attempt of this run has committed."""
    try:
        with warehouse.fs.open(warehouse.path(SEGMENTATIONS.name, f"{task.name}.parquet"), "rb") as file:
            rows = pq.read_table(file, columns=["scan_id", "run_id"]).to_pylist()
    except FileNotFoundError:
        return set()
    return {row["scan_id"] for row in rows if row["run_id"] == job.run_id}


def _copy_others(part: PartWriter, warehouse: Warehouse, rewritten: set[str]) -> None:
    """Copy the rows of a part's other scans, a row group at a time."""
    for table in (PREDICTIONS, SEGMENTATIONS):
        with warehouse.fs.open(warehouse.path(table.name, f"{part.name}.parquet"), "rb") as file:
            old = pq.ParquetFile(file)
            for number in range(old.num_row_groups):
                if old.read_row_group(number, ["scan_id"])["scan_id"][0].as_py() not in rewritten:
                    part.write(table.name, old.read_row_group(number, use_threads=False))
