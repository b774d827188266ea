"""One Spark task of an ingest: the scans of one part, from their files to committed rows."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import segpipe
from segpipe.core.orientation import CANONICAL
from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput, Reason, SegpipeError
from segpipe.pipelines import arrange, baselines, quarantine
from segpipe.pipelines.attempts import Watch
from segpipe.prepare.scan import Baseline
from segpipe.readers import scan as scan_reader
from segpipe.readers.naming import Naming
from segpipe.readers.scan import Arrange, LoadedScan
from segpipe.readers.sources import Rejected, ScanSource
from segpipe.settings import IngestSettings
from segpipe.storage import filesystem as files
from segpipe.storage.lock import Fence
from segpipe.warehouse import checked, merges, parts, slices
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store, group_rows
from segpipe.warehouse.tables import SCANS, SLICES, with_later_columns

MB = 1_000_000


@dataclass(frozen=True)
class IngestJob:
    """What every task of a run must know."""

    settings: IngestSettings
    rule: SplitRule
    fence: Fence
    naming: Naming = field(default_factory=Naming)

    @property
    def run_id(self) -> str:
        return self.fence.run_id

    def scan_id(self, source: ScanSource) -> str:
        """The id of a scan: cohort:subject:session."""
        return f"{self.settings.cohort}:{source.subject}:{source.session}"

    def fingerprint(self, source: ScanSource) -> str:
        """What must be equal for a scan to be the same again: its files, and the settings that shape its rows."""
        settings = self.settings
        shaped_by = (settings.axis, settings.resample_to, settings.keep_header_text, *self._preparing)
        return _hash(self.input_fingerprint(source), *shaped_by)

    def input_fingerprint(self, one: ScanSource | Rejected) -> str:
        """What must be equal for an input to be the same again; nobody can guess its names with it."""
        return self.naming.fingerprint(one)

    def bad_fingerprint(self, one: ScanSource | Rejected) -> str:
        """What must be equal for a bad input to be as bad again: the input, all that judges it, and this version."""
        return bad_fingerprint(self.settings, self.naming, one)

    @property
    def _preparing(self) -> tuple[str, ...]:
        return _preparing(self.settings)


def bad_fingerprint(settings: IngestSettings, naming: Naming, one: ScanSource | Rejected) -> str:
    """`IngestJob.bad_fingerprint`, before there is a job."""
    judged_by = (settings.axis, settings.resample_to, settings.layout, settings.max_voxels, segpipe.__version__)
    return _hash(naming.fingerprint(one), *judged_by, *_preparing(settings))


def _preparing(settings: IngestSettings) -> tuple[str, ...]:
    """What a preparation adds to a fingerprint; nothing without one, so that older fingerprints stay."""
    return ("prepare",) if settings.prepare else ()


@dataclass(frozen=True)
class PartTask:
    """The scans to write into one part.

    `replaces` is the part whose place it takes, with the other scans of that; `reported` are the fingerprints of those
    inputs that stand in quarantine already.
    """

    name: str
    sources: tuple[ScanSource, ...]
    replaces: str | None = None
    reported: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PartOutcome:
    """What became of a part: scan_ids written and rejected, files decoded, and where time and bytes went.

    `faces` are the written scans that may show one, `texts` those of whose headers text was blanked.
    """

    name: str
    written: tuple[str, ...]
    quarantined: tuple[str, ...]
    decoded: int
    source_bytes: int
    table_bytes: int
    task_seconds: dict[str, float] = field(default_factory=dict)
    faces: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


def write_part(task: PartTask, job: IngestJob) -> PartOutcome:
    """Read the scans of a part and commit them, with one scan in memory at a time, and the one that it is laid onto.

    What an earlier attempt of the same run has committed, or has begun to, is not done again. Raises WarehouseBusy
    where the run has lost its lock; bad inputs raise nothing.
    """
    warehouse = Store(job.settings.warehouse)
    parts.settle_attempts(warehouse, job.run_id, task.name)
    committed = _committed(warehouse, task, job)
    if committed is not None:
        return committed
    given_up: dict[str, BadInput] = {}
    while True:
        try:
            outcome = _write_part(warehouse, task, job, given_up)
            break
        except _SpoiledError as spoiled:
            given_up[spoiled.scan_id] = spoiled.reason
    if task.replaces is not None and outcome.written:
        merges.move_aside(warehouse, (SLICES.name, SCANS.name), [task.replaces])
    return outcome


class _SpoiledError(Exception):
    """A scan that failed when half of it stood in the part: the part is begun again, without the scan."""

    def __init__(self, scan_id: str, reason: BadInput):
        super().__init__(scan_id)
        self.scan_id, self.reason = scan_id, reason


def _write_part(warehouse: Store, task: PartTask, job: IngestJob, given_up: Mapping[str, BadInput]) -> PartOutcome:
    seconds: defaultdict[str, float] = defaultdict(float)
    rows: list[dict[str, Any]] = []
    told: list[pa.Table] = []
    rejected: list[dict[str, Any]] = []
    stored = {} if task.replaces is None else stored_roles(warehouse, task.replaces)
    with PartWriter(warehouse, (SLICES, SCANS), task.name, job.run_id, job.fence) as part:
        with Watch(warehouse, job.run_id) as watch:
            for source in task.sources:
                try:
                    watch.enter(job.scan_id(source))
                    if job.scan_id(source) in given_up:
                        raise given_up[job.scan_id(source)]
                    needed = stored.get(job.scan_id(source), ())
                    waited = job.bad_fingerprint(source) in task.reported
                    read = partial(load, source, job, needed, watch, waited)
                    row, table, dropped = _write_scan(part, source, job, seconds, read)
                    rows.append(row)
                    told.append(table)
                    rejected += [quarantine_row(job, one, one.paths, _error(one)) for one in dropped]
                except BadInput as error:
                    rejected.append(_rejected_scan(source, error, job))
        if task.replaces is not None and rows:
            told.append(_copy_others(part, warehouse, task.replaces, {row["scan_id"] for row in rows}))
        part.write_together(SCANS.name, told)
        # Before the part is visible: a kill in between costs one more look at a bad input, never a row.
        fresh = [row for row in rejected if row["fingerprint"] not in task.reported]
        quarantine.write(warehouse, job.fence, f"{job.run_id}-{task.name}", fresh)
    return _outcome(
        task, rows, [row["scan_id"] or row["fingerprint"] for row in rejected], sum(part.bytes.values()), seconds
    )


def stored_roles(warehouse: Store, part_name: str) -> dict[str, frozenset[str]]:
    """What the scans of a part have: no bad copy may take it from them."""
    with checked.open_part(warehouse.fs, warehouse.path(SCANS.name, f"{part_name}.parquet")) as part:
        rows = part.read(["scan_id", "files"]).to_pylist()
    return {row["scan_id"]: frozenset(file["role"].partition(".")[0] for file in row["files"]) for row in rows}


def quarantine_row(job: IngestJob, one: ScanSource | Rejected, paths: Sequence[str], error: BadInput) -> dict[str, Any]:
    """A row of `quarantine` for an input of this run, which tells names as far as they may be told."""
    named = one.paths if isinstance(one, ScanSource) else one.named
    return quarantine.row(
        "ingest",
        job.run_id,
        job.settings.cohort,
        job.scan_id(one) if isinstance(one, ScanSource) else None,
        job.naming.paths(paths, one.is_dicom),
        error.reason,
        job.naming.message(str(error), named, one.is_dicom),
        job.bad_fingerprint(one),
    )


def _error(one: Rejected) -> BadInput:
    return BadInput(one.reason, one.message, one.remedy)


def _write_scan(
    part: PartWriter,
    source: ScanSource,
    job: IngestJob,
    seconds: defaultdict[str, float],
    read: Callable[[], LoadedScan],
) -> tuple[dict[str, Any], pa.Table, tuple[Rejected, ...]]:
    """Add a scan's slices to a part: its row of `scans`, the same as Arrow has it, and its files that fit no others."""
    start = time.perf_counter()
    scan = read()  # in here, so that it is let go of before the next one is read
    seconds["read"] += time.perf_counter() - start
    remember(scan, job)
    start = time.perf_counter()
    try:
        row = scan_row(scan, job)
        table = pa.Table.from_pylist([row], SCANS.schema)
    except Exception as error:  # such as text that is no Unicode: nothing of the scan has been written yet
        raise _crashed(source, job, error) from error
    _check_slices(scan, source, job)
    group_bytes = job.settings.row_group_mb * MB
    try:
        for batch in slices.row_groups(row, list(scan.images.values()), scan.mask, scan.brain, group_bytes):
            part.write(SLICES.name, batch)
    except (OSError, SegpipeError):
        raise
    except Exception as error:
        raise _SpoiledError(job.scan_id(source), _crashed(source, job, error)) from error
    seconds["write"] += time.perf_counter() - start
    return row, table, scan.dropped


def _check_slices(scan: LoadedScan, source: ScanSource, job: IngestJob) -> None:
    """Raise BadInput if a slice is larger than a cell of a table may be."""
    planes = [*scan.images.values(), *([] if scan.mask is None else [scan.mask])]
    size = sum(plane[0].size * plane.dtype.itemsize for plane in planes)
    if size > slices.MOST_SLICE_BYTES:
        problem = f"Scan {job.scan_id(source)} has slices of {size} bytes, more than {slices.MOST_SLICE_BYTES}"
        raise BadInput(Reason.TOO_LARGE, problem, "crop its images, or ingest them along another --axis")


def _crashed(source: ScanSource, job: IngestJob, error: Exception) -> BadInput:
    problem = f"Scan {job.scan_id(source)} made its reader fail ({type(error).__name__})"
    return BadInput(Reason.CRASHED, problem, "report this as a bug of segpipe, with the file")


def load(
    source: ScanSource, job: IngestJob, needed: Collection[str] = (), watch: Watch | None = None, waited: bool = False
) -> LoadedScan:
    """The scan, or BadInput whatever is wrong with it: an input must never stop the others.

    No damaged file drops out of it whose role is `needed`. For `watch` and `waited` see `baselines.first`.

    Where the source itself does not answer any more, the run stops instead: no scan is to blame for that. The text of a
    foreign exception may quote the file, so only its type is told, and names only as far as they may be.
    """
    try:
        return _load(source, job, needed, watch, waited)
    except BadInput as error:
        told = [job.naming.message(text, source.paths, source.is_dicom) for text in (error.problem, error.remedy)]
        raise BadInput(error.reason, *told) from None


def _load(source: ScanSource, job: IngestJob, needed: Collection[str], watch: Watch | None, waited: bool) -> LoadedScan:
    settings = job.settings
    try:
        return scan_reader.load(
            settings.source,
            source,
            settings.axis,
            settings.resample_to,
            settings.max_voxels,
            settings.keep_header_text,
            _arranging(source, job, watch, waited) if settings.prepare else None,
            needed,
        )
    except BadInput as error:
        if error.reason is Reason.UNREADABLE:
            _check_source(settings.source)
        raise
    except OSError as error:
        _check_source(settings.source)
        problem = f"Scan {job.scan_id(source)} cannot be read ({error.strerror or type(error).__name__})"
        raise BadInput(
            Reason.UNREADABLE, problem, "check the files and their permissions, and run ingest again"
        ) from error
    except Exception as error:
        raise _crashed(source, job, error) from error


def _arranging(source: ScanSource, job: IngestJob, watch: Watch | None, waited: bool) -> Arrange:
    """What prepares a scan, and lays it onto an earlier visit of its patient if it has one."""

    def baseline() -> Baseline | None:
        warehouse = Store(job.settings.warehouse)
        return baselines.first(warehouse, source.earlier, lambda other: load(other, job), watch, waited)

    name, orientation = f"Scan {job.scan_id(source)}", CANONICAL[job.settings.axis]
    return arrange.preparing(name, orientation, baseline if source.earlier else None)


def remember(scan: LoadedScan, job: IngestJob) -> None:
    """Keep a prepared scan for the visits of its patient that this process prepares next."""
    if job.settings.prepare:
        baselines.remember(job.settings.warehouse, job.scan_id(scan.source), job.fingerprint(scan.source), scan)


def _check_source(url: str) -> None:
    """Raise the OSError of a source that is gone as a whole: unmounted, its name node down, its token expired."""
    fs, root = files.filesystem(url)
    fs.invalidate_cache()
    fs.info(root)


def scan_row(scan: LoadedScan, job: IngestJob) -> dict[str, Any]:
    """The row of `scans`."""
    source = scan.source
    return {
        "scan_id": job.scan_id(source),
        "cohort": job.settings.cohort,
        "subject": source.subject,
        "session": source.session,
        "split": job.rule.of(source.subject),
        "split_rule": str(job.rule),
        "layout": source.layout,
        "label_convention": scan.label_convention,
        "modalities": list(scan.images),
        "orientation": scan.orientation,
        "shape": list(scan.shape),
        "spacing_mm": scan.spacing_mm.tolist(),
        "affine": scan.affine.ravel().tolist(),
        "brain_box": list(scan.brain_box),
        "brain_voxels": scan.brain_voxels,
        "resampled_to": scan.resampled_to,
        "space": scan.space,
        "preparation": scan.preparation,
        "flags": scan.flags,
        "follows": scan.follows,
        "files": [_file_row(row, job) for row in scan.file_rows],
        "intensity": [{"modality": name, **asdict(of)} for name, of in scan.statistics.items()],
        "label_counts": None
        if scan.label_counts is None
        else [{"label": label, "voxels": voxels} for label, voxels in sorted(scan.label_counts.items())],
        "may_show_face": scan.may_show_face,
        "fingerprint": job.fingerprint(source),
        "run_id": job.run_id,
    }


def _file_row(row: Mapping[str, Any], job: IngestJob) -> dict[str, Any]:
    """A file as `scans` tells it; a DICOM series is named after its content already."""
    is_dicom = row["container"] == "dicom"
    return {**row, "path": row["path"] if is_dicom else job.naming.paths([row["path"]], False)[0]}


def _copy_others(part: PartWriter, warehouse: Store, replaced: str, rewritten: set[str]) -> pa.Table:
    """Copy the slices of a part's other scans, a row group at a time, and give the rows of these scans."""
    with checked.open_part(warehouse.fs, warehouse.path(SLICES.name, f"{replaced}.parquet")) as old:
        for number, one in enumerate(group_rows(old.metadata)):
            if one.scan_id not in rewritten:
                rows = with_later_columns(old.row_group(number), SLICES)
                part.write(SLICES.name, rows.select(SLICES.schema.names))
    with checked.open_part(warehouse.fs, warehouse.path(SCANS.name, f"{replaced}.parquet")) as old:
        rows = with_later_columns(old.read(), SCANS).select(SCANS.schema.names)
    return rows.filter(pc.invert(pc.is_in(rows["scan_id"], pa.array(sorted(rewritten))))).cast(SCANS.schema)


def _rejected_scan(source: ScanSource, error: BadInput, job: IngestJob) -> dict[str, Any]:
    paths = [file.path for file in source.files]
    return quarantine_row(job, source, paths, error)


def _committed(warehouse: Store, task: PartTask, job: IngestJob) -> PartOutcome | None:
    """The outcome of this part where an earlier attempt of this run has committed it and died before it could tell."""
    path = warehouse.path(SCANS.name, f"{task.name}.parquet")
    try:
        with checked.open_part(warehouse.fs, path) as part:
            wanted = [name for name in _TOLD if name in part.schema.names]
            found = with_later_columns(part.read(wanted), SCANS).to_pylist()
    except FileNotFoundError:
        return None
    rows = [row for row in found if row["run_id"] == job.run_id]
    if not rows:
        return None
    written = {row["scan_id"] for row in rows}
    rejected = [job.scan_id(source) for source in task.sources if job.scan_id(source) not in written]
    size = sum(warehouse.fs.size(warehouse.path(table.name, f"{task.name}.parquet")) for table in (SLICES, SCANS))
    return _outcome(task, rows, rejected, size, {})


_TOLD = ("scan_id", "run_id", "may_show_face", "files")


def _outcome(
    task: PartTask,
    rows: Sequence[Mapping[str, Any]],
    rejected: Sequence[str],
    table_bytes: int,
    seconds: Mapping[str, float],
) -> PartOutcome:
    return PartOutcome(
        name=task.name,
        written=tuple(row["scan_id"] for row in rows),
        quarantined=tuple(rejected),
        decoded=len(task.sources),
        source_bytes=sum(file.bytes for source in task.sources for file in source.files),
        table_bytes=table_bytes,
        task_seconds=dict(seconds),
        faces=tuple(row["scan_id"] for row in rows if row["may_show_face"]),
        texts=tuple(row["scan_id"] for row in rows if any(file["blanked"] for file in row["files"])),
    )


def _hash(*values: object) -> str:
    return hashlib.sha256("\0".join(map(repr, values)).encode()).hexdigest()
