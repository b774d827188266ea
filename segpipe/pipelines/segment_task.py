"""One Spark task of a segmentation: some scans, from their slices to committed predictions and measures."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

import segpipe
from segpipe.core.prediction import AS_INGESTED, Model, Predictor, Segmented, SliceBatch, Slices
from segpipe.core.regions import CONVENTIONS
from segpipe.core.runs import region_runs
from segpipe.errors import BadInput, Reason
from segpipe.pipelines import ingest_task, quarantine, ways
from segpipe.pipelines.arrange import is_resampled
from segpipe.pipelines.attempts import Watch
from segpipe.pipelines.follow_up import packed
from segpipe.pipelines.measures import region_rows
from segpipe.readers.archive import Rejected, ScanSource
from segpipe.readers.scan import Scan
from segpipe.storage.lock import Fence
from segpipe.warehouse import checked, merges, parts
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.scan_slices import ScanPlace, ScanSlices, scan_input, scan_rows
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import PLACED, PREDICTIONS, SEGMENTATIONS, with_later_columns

_GROUP_BYTES = 16_000_000
_LOADED_SLICES = 16
_PLACED = tuple(field.name for field in PLACED)


@dataclass(frozen=True)
class Job:
    """What every task of a run must know.

    `reader` is set where scans come straight from an archive; it reads them as ingest does. `reported` are the
    fingerprints of what stands in quarantine already. `masks` says that masks are written as files afterwards.
    """

    warehouse: str
    cohort: str
    model_id: str
    modalities: tuple[str, ...]
    orientation: str
    label_convention: str
    fence: Fence
    reader: ingest_task.Job | None = None
    reported: frozenset[str] = frozenset()
    space: str = AS_INGESTED
    masks: bool = False

    @classmethod
    def of(cls, warehouse: str, cohort: str, model: Model, fence: Fence) -> Job:
        """The job of running a model over a cohort."""
        return cls(
            warehouse,
            cohort,
            model.model_id,
            tuple(model.modalities),
            model.orientation,
            model.label_convention,
            fence,
            space=model.space,
        )

    @property
    def run_id(self) -> str:
        """The run that does it."""
        return self.fence.run_id

    def fit(self, scan_id: str, modalities: Sequence[str], orientation: str, space: str | None) -> None:
        """Raise BadInput if the model cannot take a scan; `space` is None for a scan as ingested.

        A model of which no space is known takes a prepared scan only where the run itself was told to prepare.
        """
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
        told = self.reader is not None and self.reader.settings.prepare and self.space == AS_INGESTED
        if (space or AS_INGESTED) != self.space and not told:
            raise BadInput(
                Reason.DOES_NOT_FIT_MODEL,
                f"Scan {scan_id} is {space or AS_INGESTED}, model {self.model_id} was trained on {self.space}",
                "segment its archive with --source and --prepare, or ingest it as the model's scans were",
            )

    def scan_id(self, scan: ScanPlace | ScanSource) -> str:
        """The id of a scan, wherever it is read from."""
        if isinstance(scan, ScanPlace):
            return scan.scan_id
        assert self.reader is not None  # it is there where scans come from an archive
        return self.reader.scan_id(scan)

    def bad_fingerprint(self, scan_fingerprint: str) -> str:
        """What must be equal for a scan to be as unfit again: scan, model and this version."""
        content = "\0".join((scan_fingerprint, self.model_id, segpipe.__version__))
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class SegmentTask:
    """The scans to segment into one part; `replaces` is the part whose place it takes, with the other scans of that."""

    name: str
    scans: tuple[ScanPlace | ScanSource, ...]
    replaces: str | None = None


@dataclass(frozen=True)
class ScanOutcome:
    """What became of a scan: `reason` is that of its quarantine, `slices` are its own, seconds where time went."""

    scan_id: str
    slices: int = 0
    seconds: float = 0.0
    infer_seconds: float = 0.0
    reason: str | None = None


def segment_part(task: SegmentTask, job: Job, predictor: Predictor) -> list[ScanOutcome]:
    """Segment the scans of a part and commit them, with one scan in memory at a time, and the one it is laid onto.

    What an earlier attempt of the same run has committed is not done again. Raises WarehouseBusy if the run has lost
    its lock; a scan that cannot be segmented becomes a row of `quarantine`.
    """
    warehouse = Store(job.warehouse)
    parts.settle_attempts(warehouse, job.run_id, task.name)
    done = _committed(warehouse, task, job)
    if done:
        return [
            ScanOutcome(scan_id, reason=None if scan_id in done else str(Reason.CRASHED))
            for scan_id in map(job.scan_id, task.scans)
        ]
    outcomes: list[ScanOutcome] = []
    rejected: list[dict[str, Any]] = []
    measured: list[pa.Table] = []
    with PartWriter(warehouse, (PREDICTIONS, SEGMENTATIONS), task.name, job.run_id, job.fence) as part:
        with Watch(warehouse, job.run_id, task.name, "segment") as watch:
            for scan in opened(warehouse, task.scans, job):
                try:
                    watch.enter(scan.scan_id)
                    outcomes.append(_segment_scan(part, measured, scan, job, predictor, watch))
                except BadInput as error:
                    outcomes.append(ScanOutcome(scan.scan_id, reason=str(error.reason)))
                    rejected.append(quarantine_row(job, scan.scan_id, scan.paths, scan.fingerprint, error))
                rejected += scan.dropped()
        if task.replaces is not None:
            measured.append(
                _copy_others(part, warehouse, task.replaces, {one.scan_id for one in outcomes if one.reason is None})
            )
        if measured:  # in one row group, for a reader pays for each
            part.write(SEGMENTATIONS.name, pa.concat_tables(measured))
        fresh = [row for row in rejected if row["fingerprint"] not in job.reported]
        quarantine.write(warehouse, job.fence, f"{job.run_id}-{task.name}", fresh)
    if task.replaces is not None and measured:
        merges.move_aside(warehouse, (PREDICTIONS.name, SEGMENTATIONS.name), [task.replaces])
    return outcomes


def quarantine_row(
    job: Job, scan_id: str | None, paths: Sequence[str], fingerprint: str, error: BadInput
) -> dict[str, Any]:
    """A row of `quarantine` for a scan that this model cannot segment; `fingerprint` is that of the scan."""
    bad = job.bad_fingerprint(fingerprint)
    return quarantine.row("segment", job.run_id, job.cohort, scan_id, paths, error.reason, str(error), bad)


# Scans from the tables, and scans straight from an archive


class OpenedScan(Protocol):
    """A scan that is about to be segmented."""

    @property
    def scan_id(self) -> str: ...

    @property
    def paths(self) -> list[str]: ...

    @property
    def fingerprint(self) -> str: ...

    def read(self, watch: Watch) -> tuple[dict[str, Any], Slices]:
        """Its row of `scans` and its slices. Raises BadInput if it cannot be read or the model cannot take it.

        `watch` sees which scan a worker dies on: reading one may mean to read another one first.
        """
        ...

    def dropped(self) -> list[dict[str, Any]]:
        """Rows of `quarantine` for its files that did not fit the others, once it has been read."""
        ...


def opened(warehouse: Store, scans: Sequence[ScanPlace | ScanSource], job: Job) -> Iterator[OpenedScan]:
    """The scans, one after the other; rows of `scans` are read part by part."""
    by_part: defaultdict[str, list[ScanPlace]] = defaultdict(list)
    for scan in scans:
        if isinstance(scan, ScanPlace):
            by_part[scan.part].append(scan)
    for part, members in by_part.items():
        rows = scan_rows(warehouse, part, [place.scan_id for place in members])
        yield from (_StoredScan(warehouse, place, rows[place.scan_id], job) for place in members)
    for scan in scans:
        if isinstance(scan, ScanSource):
            assert job.reader is not None  # only a run with a source plans such scans
            yield _ArchivedScan(scan, job, job.reader)


@dataclass(frozen=True)
class _StoredScan:
    """A scan whose slices stand in the tables."""

    warehouse: Store
    place: ScanPlace
    row: dict[str, Any]
    job: Job

    @property
    def scan_id(self) -> str:
        return self.place.scan_id

    @property
    def paths(self) -> list[str]:
        return [file["path"] for file in self.row["files"]]

    @property
    def fingerprint(self) -> str:
        return str(self.row["fingerprint"])

    def read(self, watch: Watch) -> tuple[dict[str, Any], Slices]:
        self.job.fit(self.scan_id, self.row["modalities"], self.row["orientation"], self.row["space"])
        return self.row, ScanSlices(self.warehouse, self.place, self.row, self.job.modalities)

    def dropped(self) -> list[dict[str, Any]]:
        return []  # ingest has told them


@dataclass(frozen=True)
class _ArchivedScan:
    """A scan that stands in an archive only."""

    source: ScanSource
    job: Job
    reader: ingest_task.Job
    lost: list[Rejected] = field(default_factory=list)

    @property
    def scan_id(self) -> str:
        return self.reader.scan_id(self.source)

    @property
    def paths(self) -> list[str]:
        return self.reader.naming.paths(self.source.paths, self.source.is_dicom)

    @property
    def fingerprint(self) -> str:
        return self.reader.fingerprint(self.source)

    def read(self, watch: Watch) -> tuple[dict[str, Any], Slices]:
        waited = self.job.bad_fingerprint(self.fingerprint) in self.job.reported
        scan = ingest_task.load(self.source, self.reader, watch=watch, waited=waited)
        self.lost.extend(scan.dropped)
        try:
            self.job.fit(self.scan_id, scan.modalities, scan.orientation, scan.space)
        except BadInput:
            self._raise_what_is_lost()
            raise
        row = ingest_task.scan_row(scan, self.reader)
        if self.job.masks and is_resampled(row):
            ways.keep(Store(self.job.warehouse), self.job.run_id, row)
        ingest_task.remember(scan, self.reader)
        if scan.space is not None:
            placed = {name: (row | {"moment": self.source.moment})[name] for name in _PLACED}
            row |= {"placed": placed, "brain": packed(scan.brain)}
        return row, _LoadedSlices(scan, self.job.modalities)

    def _raise_what_is_lost(self) -> None:
        """Raise what is wrong with a file that dropped out, if the model looks at its modality."""
        wanted = {file.path for file in self.source.files if file.role in self.job.modalities}
        for one in self.lost:
            if wanted & set(one.paths):
                self.lost.remove(one)
                raise self._told(one)

    def _told(self, one: Rejected) -> BadInput:
        told = [self.reader.naming.message(text, one.named, one.is_dicom) for text in (one.message, one.remedy)]
        return BadInput(one.reason, *told)

    def dropped(self) -> list[dict[str, Any]]:
        return [
            quarantine_row(
                self.job,
                None,
                self.reader.naming.paths(one.paths, one.is_dicom),
                self.reader.input_fingerprint(one),
                self._told(one),
            )
            for one in self.lost
        ]


class _LoadedSlices:
    """The slices of a scan in memory that show brain."""

    def __init__(self, scan: Scan, modalities: Sequence[str]):
        self._channels = [scan.images[name] for name in modalities]
        self._brain = np.flatnonzero(scan.brain_pixels)
        self.truth = None if scan.mask is None else scan.mask.astype(np.uint8)

    def __iter__(self) -> Iterator[SliceBatch]:
        for start in range(0, len(self._brain), _LOADED_SLICES):
            chosen = self._brain[start : start + _LOADED_SLICES]
            yield chosen.tolist(), [channel[chosen] for channel in self._channels]


# One scan


def _segment_scan(
    part: PartWriter,
    measured: list[pa.Table],
    opened_scan: OpenedScan,
    job: Job,
    predictor: Predictor,
    watch: Watch,
) -> ScanOutcome:
    """Write a scan's predictions to the part, and add its measures to `measured` once they are written."""
    start = time.perf_counter()
    scan, slices = opened_scan.read(watch)
    with _no_scan_stops_others(opened_scan.scan_id):
        found = predictor.segment(scan_input(scan, job.modalities), slices)
        inferred = time.perf_counter()
        measures = _measure(scan, found, slices.truth, job)
    for rows in _prediction_rows(scan, found, job):
        part.write(PREDICTIONS.name, rows)
    measured.append(measures)
    return ScanOutcome(opened_scan.scan_id, scan["shape"][0], time.perf_counter() - start, inferred - start)


@contextlib.contextmanager
def _no_scan_stops_others(scan_id: str) -> Iterator[None]:
    """Make whatever goes wrong BadInput, but for faults of the file system, which are to be tried again."""
    try:
        yield
    except (BadInput, OSError):
        raise
    except Exception as error:
        problem = f"Scan {scan_id} made the model or its measures fail ({type(error).__name__}: {error})"
        raise BadInput(Reason.CRASHED, problem, "report this as a bug of segpipe, with the scan") from error


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
    regions = region_runs(labels, CONVENTIONS[convention].regions)
    pixels = zip(*(runs.slice_voxels.tolist() for runs in regions.values()), strict=True)
    return [
        [{"region": region, "pixels": number} for region, number in zip(regions, numbers, strict=True)]
        for numbers in pixels
    ]


def _measure(scan: dict[str, Any], found: Segmented, truth: np.ndarray | None, job: Job) -> pa.Table:
    rows = region_rows(scan, found.labels, job.label_convention, truth, found.mean_probability, found.max_probability)
    also = {"model_id": job.model_id, "run_id": job.run_id, "placed": scan.get("placed"), "brain": scan.get("brain")}
    named = [row | also for row in rows]
    return pa.Table.from_pylist(named, SEGMENTATIONS.schema)


def _committed(warehouse: Store, task: SegmentTask, job: Job) -> set[str]:
    """The scans of this part that an earlier attempt of this run has committed."""
    try:
        with checked.open_part(warehouse.fs, warehouse.path(SEGMENTATIONS.name, f"{task.name}.parquet")) as part:
            rows = part.read(["scan_id", "run_id"]).to_pylist()
    except FileNotFoundError:
        return set()
    return {row["scan_id"] for row in rows if row["run_id"] == job.run_id}


def _copy_others(part: PartWriter, warehouse: Store, replaced: str, rewritten: set[str]) -> pa.Table:
    """Copy the predictions of a part's other scans, a row group at a time; gives their rows of `segmentations`."""
    with checked.open_part(warehouse.fs, warehouse.path(PREDICTIONS.name, f"{replaced}.parquet")) as old:
        for number in range(old.row_groups):
            if old.row_group(number, ["scan_id"])["scan_id"][0].as_py() not in rewritten:
                part.write(PREDICTIONS.name, old.row_group(number))
    with checked.open_part(warehouse.fs, warehouse.path(SEGMENTATIONS.name, f"{replaced}.parquet")) as old:
        rows = with_later_columns(old.read(), SEGMENTATIONS)
    kept = [scan_id not in rewritten for scan_id in rows["scan_id"].to_pylist()]
    return rows.filter(pa.array(kept, pa.bool_())).select(SEGMENTATIONS.schema.names).cast(SEGMENTATIONS.schema)
