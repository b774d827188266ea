"""What a model has predicted, as files for other tools: NIfTI in the source's grid, DICOM SEG and structured reports
for DICOM sources.

A file is written aside and renamed, and says which model and run it comes from; one that says so already is left alone.
So whatever is killed, the same command writes what is missing and what has changed, and nothing else.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from segpipe.core.regions import CONVENTIONS, LabelConvention, recode
from segpipe.errors import BadInput, Reason, TableError
from segpipe.pipelines import attempts, ways
from segpipe.pipelines.arrange import is_resampled
from segpipe.pipelines.segment_job import Candidate, Place, SegmentJob, StoredJob
from segpipe.prepare.native import resampled_to_source
from segpipe.readers import dicom_objects, dicom_seg, dicom_sr, mask_files
from segpipe.readers.names import MASK
from segpipe.storage import filesystem as files
from segpipe.warehouse.predicted import PredictedPlace, label_map, measured, predicted_places
from segpipe.warehouse.scan_slices import ScanPlace, scan_places, scan_rows
from segpipe.warehouse.store import Store, cohort_slug

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress
    from segpipe.settings import SegmentSettings

_START_BYTES = 1 << 14
_TASK_SCANS = 16


@dataclass(frozen=True)
class MaskScan(Generic[Place]):
    """A scan whose mask is wanted as a file: its prediction, where the run has it from, and its place in the tables."""

    predicted: PredictedPlace
    place: Place
    stored: ScanPlace | None = None


@dataclass(frozen=True)
class MaskOutcome:
    """What became of the files of a scan: how many were written or stand already, and why others could not be."""

    scan_id: str
    written: int = 0
    kept: int = 0
    problems: tuple[str, ...] = ()


def write_masks(
    spark: SparkSession,
    settings: SegmentSettings,
    job: SegmentJob[Place],
    candidates: Sequence[Candidate[Place]],
    progress: Progress | None,
) -> list[MaskOutcome]:
    """Write the files that `settings` ask for, of all candidates that the model has segmented.

    Those that have changed since are left out.
    """
    scans = _at_hand(Store(settings.warehouse), job, candidates)
    if not scans:
        return []
    wanted = {"nifti": settings.nifti, "seg": settings.dicom_seg, "sr": settings.dicom_sr}
    groups = [tuple(scans[start : start + _TASK_SCANS]) for start in range(0, len(scans), _TASK_SCANS)]

    with attempts.running(spark, job.run_id, len(scans), "write masks", progress) as bar:
        told = attempts.tally(spark, bar)

        def write(group: Sequence[MaskScan[Place]], watch: attempts.Watch) -> list[MaskOutcome]:
            outcomes = list(write_group(group, job, wanted, watch))
            told.add((len(outcomes), 0))
            return outcomes

        found = attempts.each(spark, Store(job.warehouse), job.run_id, groups, write, len(groups))
        return [outcome for group in found for outcome in group]


def _at_hand(warehouse: Store, job: SegmentJob[Place], candidates: Sequence[Candidate[Place]]) -> list[MaskScan[Place]]:
    index = warehouse.index(job.cohort)
    stored = scan_places(warehouse, job.cohort) if index else {}
    by_id = {one.scan_id: one for one in candidates}
    found = []
    for scan_id, predicted in sorted(predicted_places(warehouse, job.cohort, job.model_id).items()):
        one, row = by_id.get(scan_id), stored.get(scan_id)
        if one is None or one.fingerprint != predicted.fingerprint:
            continue
        if row is not None and index[scan_id]["fingerprint"] != predicted.fingerprint:
            row = None
        if row is None and isinstance(job, StoredJob):
            continue  # it has left the tables, or was ingested again, since the plan was made
        found.append(MaskScan(predicted, one.place, row))
    return found


def write_group(
    scans: Sequence[MaskScan[Place]], job: SegmentJob[Place], wanted: Mapping[str, str | None], watch: attempts.Watch
) -> Iterator[MaskOutcome]:
    """Write the files of some scans, one scan in memory at a time; `wanted` are the folders of the kinds of files."""
    warehouse = Store(job.warehouse)
    by_part: defaultdict[str, list[str]] = defaultdict(list)
    for scan in scans:
        if scan.stored is not None:
            by_part[scan.stored.part].append(scan.predicted.scan_id)
    rows = {scan_id: row for part, of in by_part.items() for scan_id, row in scan_rows(warehouse, part, of).items()}
    for scan in scans:
        try:
            watch.enter(scan.predicted.scan_id)
        except BadInput as error:
            yield MaskOutcome(scan.predicted.scan_id, problems=(str(error),))
            continue
        yield _write_scan(warehouse, scan, rows.get(scan.predicted.scan_id), job, wanted)


def _write_scan(
    warehouse: Store,
    scan: MaskScan[Place],
    row: Mapping[str, Any] | None,
    job: SegmentJob[Place],
    wanted: Mapping[str, str | None],
) -> MaskOutcome:
    scan_id, run_id = scan.predicted.scan_id, scan.predicted.run_id
    stamp = mask_files.stamp(job.model_id, run_id)
    _, subject, session = scan_id.split(":")
    name = files.join(cohort_slug(job.cohort), cohort_slug(subject), cohort_slug(session), job.model_id)
    is_dicom = job.is_dicom(scan.place)
    usable = {kind: folder for kind, folder in wanted.items() if folder and (is_dicom or kind == "nifti")}
    folders = _Folders(usable, name, stamp)
    for views in _possible_views(scan, job, row):
        if not any(folders.missing(view) for view in views):
            return MaskOutcome(scan_id, kept=sum(len(folders.wanted(view)) for view in views))
    written = kept = 0
    problems = []
    try:
        row = row or ways.kept(warehouse, job.run_id, scan_id) or job.row(scan.place)
        labels, convention = _in_source_labels(warehouse, scan.predicted, row)
        for view in _views(scan_id, row):
            missing = folders.missing(view)
            kept += len(folders.wanted(view)) - len(missing)
            if not missing:
                continue
            drawing = _Drawing(warehouse, scan, job, *_native(labels, row, view), convention, stamp)
            for kind in missing:  # made before it is put there, because a full disk is not the scan's fault
                try:
                    with _no_scan_stops_others(scan_id):
                        content = drawing.file(kind, view.key)
                except BadInput as error:  # of this kind of file: the others need not lack what it lacks
                    problems.append(str(error))
                    continue
                folders.put(kind, view, content)
                written += 1
    except (BadInput, TableError) as error:
        problems.append(str(error))
    return MaskOutcome(scan_id, written, kept, tuple(problems))


@dataclass(frozen=True, eq=False)
class _Drawing:
    """A label map on the grid that it is wanted on, with all that its files need."""

    warehouse: Store
    scan: MaskScan[Any]
    job: SegmentJob[Any]
    labels: np.ndarray
    row: dict[str, Any]
    convention: LabelConvention
    stamp: str

    def file(self, kind: str, key: str) -> bytes:
        """The content of a file; `key` names it in identifiers. Raises BadInput if the source cannot have one."""
        if kind == "nifti":
            return mask_files.nifti_mask(self.labels, self.row, self.convention, self.stamp)
        contents = _series(self.job, self.scan, self.row)
        if kind == "seg":
            return dicom_seg.dicom_seg(self.labels, self.row, self.convention, self.stamp, self.job.model_id, contents)
        measures = measured(self.warehouse, self.scan.predicted, self.job.model_id)
        return dicom_sr.dicom_sr(measures, key, self.stamp, self.job.model_id, contents)


@contextlib.contextmanager
def _no_scan_stops_others(scan_id: str) -> Iterator[None]:
    """Make whatever goes wrong with a scan BadInput that tells no text of it: the archive's paths may name patients."""
    try:
        yield
    except (BadInput, TableError):
        raise
    except OSError as error:
        problem = f"Files of scan {scan_id} cannot be read ({error.strerror or type(error).__name__})"
        raise BadInput(Reason.UNREADABLE, problem, "check the source and its permissions, and run it again") from None
    except Exception as error:
        problem = f"The mask of scan {scan_id} cannot be made ({type(error).__name__})"
        raise BadInput(Reason.CRASHED, problem, "report this as a bug of segpipe, with the scan") from None


@dataclass(frozen=True)
class _View:
    """A grid that a scan's mask is wanted on: that of the scan, or, of a prepared one, of the source series `role`.

    `key` names it in identifiers, `suffix` in file names.
    """

    key: str
    suffix: str = ""
    role: str | None = None
    is_first: bool = True


def _views(scan_id: str, row: Mapping[str, Any]) -> list[_View]:
    if not is_resampled(row):
        return [_View(scan_id)]
    return _native_views(scan_id, [file["role"] for file in row["files"]])


def _native_views(scan_id: str, roles: Sequence[str]) -> list[_View]:
    found = [role for role in roles if role != MASK]
    return [_View(f"{scan_id}:{role}", f"_{role}", role, role == found[0]) for role in found]


def _possible_views(scan: MaskScan[Place], job: SegmentJob[Place], row: Mapping[str, Any] | None) -> list[list[_View]]:
    """The views that the scan may turn out to have; of one that must be read first, both kinds."""
    scan_id = scan.predicted.scan_id
    if row is not None:
        return [_views(scan_id, row)]
    return [[_View(scan_id)], _native_views(scan_id, job.roles(scan.place))]


@dataclass(frozen=True)
class _Folders:
    """Where the files of a scan go, by the kinds that are wanted: nifti, seg, sr."""

    folders: Mapping[str, str]
    name: str
    stamp: str

    def wanted(self, view: _View) -> list[str]:
        """The kinds of files that a view has; there is one report a scan."""
        return [kind for kind in self.folders if kind != "sr" or view.is_first]

    def missing(self, view: _View) -> list[str]:
        """The kinds of files that are not there yet, or come from another run."""
        return [kind for kind in self.wanted(view) if not self._stands(kind, view)]

    def _stands(self, kind: str, view: _View) -> bool:
        start = _start(self.folders[kind], self._file(kind, view))
        if kind == "nifti":
            return mask_files.has_stamp(start, self.stamp)
        uid = (dicom_seg.seg_uid if kind == "seg" else dicom_sr.sr_uid)(view.key, self.stamp)
        return dicom_objects.is_instance(start, uid)

    def put(self, kind: str, view: _View, content: bytes) -> None:
        """Write one file."""
        _put(self.folders[kind], self._file(kind, view), content)

    def _file(self, kind: str, view: _View) -> str:
        suffix = "" if kind == "sr" else view.suffix
        return f"{self.name}{suffix}" + (".nii.gz" if kind == "nifti" else ".dcm")


def _native(labels: np.ndarray, row: Mapping[str, Any], view: _View) -> tuple[np.ndarray, dict[str, Any]]:
    """The labels on the grid of a view, and the row of `scans` that a scan with just this grid would have."""
    if view.role is None:
        return labels, dict(row)
    file = next(dict(file) for file in row["files"] if file["role"] == view.role)
    native, _ = resampled_to_source(labels, row, view.role)
    changes = {"scan_id": view.key, "files": [file], "orientation": file["orientation"], "resampled_to": None}
    return native, dict(row) | changes


def _in_source_labels(
    warehouse: Store, place: PredictedPlace, row: Mapping[str, Any]
) -> tuple[np.ndarray, LabelConvention]:
    """The label map in the convention of the scan's own mask, or of the model where there is none or it has others."""
    labels, name = label_map(warehouse, place, row["shape"])
    known, wanted = CONVENTIONS[name], CONVENTIONS.get(row["label_convention"] or name, CONVENTIONS[name])
    if known.region_names != wanted.region_names:
        return labels, known
    return recode(labels, known, wanted), wanted


def _series(job: SegmentJob[Place], scan: MaskScan[Place], row: Mapping[str, Any]) -> list[bytes]:
    """The files of the series whose grid the scan has."""
    return job.series(scan.place, mask_files.grid_file(row)["role"].partition(".")[0])


def _start(folder: str, name: str) -> bytes:
    """The first bytes of a file; none where it is missing."""
    fs, root = files.filesystem(folder)
    with contextlib.suppress(FileNotFoundError), fs.open(files.join(root, name), "rb") as file:
        return bytes(file.read(_START_BYTES))
    return b""


def _put(folder: str, name: str, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    fs, root = files.filesystem(folder)
    path = files.join(root, name)
    files.make_folder(fs, path.rpartition("/")[0])
    files.replace(fs, path, content)
