"""What a segmentation must know, and where its scans come from: from the tables, or straight from an archive."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

import segpipe
from segpipe.core.prediction import AS_INGESTED, Model, SliceBatch, Slices
from segpipe.errors import BadInput, Reason
from segpipe.pipelines import ingest_task, quarantine, ways
from segpipe.pipelines.arrange import is_resampled
from segpipe.pipelines.attempts import Watch
from segpipe.pipelines.follow_up import packed_brain
from segpipe.readers import packed
from segpipe.readers.archive import Rejected, ScanSource
from segpipe.readers.scan import LoadedScan
from segpipe.readers.sources import open_root
from segpipe.storage import filesystem as files
from segpipe.storage.lock import Fence
from segpipe.warehouse.scan_slices import ScanPlace, ScanSlices, scan_rows
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import PLACED

_LOADED_SLICES = 16
_DICOM = "dicom"
_PLACED = tuple(column.name for column in PLACED)

Place = TypeVar("Place", ScanPlace, ScanSource)
"""Where a scan stands: in the tables, or in an archive."""

AnyJob = TypeVar("AnyJob", bound="SegmentJob[Any]")


@dataclass(frozen=True)
class SegmentJob(ABC, Generic[Place]):
    """What every task of a run must know, and how it comes by its scans; there is one kind for each kind of cohort.

    `reported` are the fingerprints of what stands in quarantine already. `masks` says that masks are written as files
    afterwards.
    """

    warehouse: str
    cohort: str
    model_id: str
    modalities: tuple[str, ...]
    orientation: str
    label_convention: str
    fence: Fence
    reported: frozenset[str] = frozenset()
    space: str = AS_INGESTED
    masks: bool = False

    @classmethod
    def of(cls: type[AnyJob], warehouse: str, cohort: str, model: Model, fence: Fence, **more: Any) -> AnyJob:
        """The job of running a model over a cohort; `more` are fields that do not follow from these."""
        return cls(
            warehouse,
            cohort,
            model.model_id,
            tuple(model.modalities),
            model.orientation,
            model.label_convention,
            fence,
            space=model.space,
            **more,
        )

    @property
    def run_id(self) -> str:
        """The run that does it."""
        return self.fence.run_id

    def fit(self, scan_id: str, modalities: Sequence[str], orientation: str, space: str | None) -> None:
        """Raise BadInput if the model cannot take a scan; `space` is None for a scan as ingested.

        A model of which no space is known takes a prepared scan only where the run itself was told `--prepare`, and
        then no other.
        """
        missing = [name for name in self.modalities if name not in modalities]
        if missing:
            raise BadInput(
                Reason.MISSING_MODALITY,
                f"Scan {scan_id} lacks {', '.join(missing)}, which model {self.model_id} needs",
                "segment it with a model that was trained on what it has",
            )
        if orientation != self.orientation:
            raise BadInput(
                Reason.DOES_NOT_FIT_MODEL,
                f"Scan {scan_id} has slices along {orientation}, but model {self.model_id} needs {self.orientation}",
                "ingest it with the --axis that the model was trained on",
            )
        if self.prepares and space is None:
            raise BadInput(
                Reason.DOES_NOT_FIT_MODEL,
                f"Scan {scan_id} is in the tables as it was ingested, and --prepare needs prepared scans",
                "segment its archive with --source and --prepare, or ingest it with --prepare",
            )
        told = self.prepares and self.space == AS_INGESTED
        if (space or AS_INGESTED) != self.space and not told:
            raise BadInput(
                Reason.DOES_NOT_FIT_MODEL,
                f"Scan {scan_id} is {space or AS_INGESTED}, but model {self.model_id} was trained on {self.space}",
                "add --prepare if the model may see prepared scans, or ingest it as the model's scans were"
                if self.space == AS_INGESTED
                else "segment its archive with --source and --prepare, or ingest it as the model's scans were",
            )

    def bad_fingerprint(self, scan_fingerprint: str) -> str:
        """What must be equal for a scan to be as unfit again: scan, model and this version."""
        return bad_fingerprint(scan_fingerprint, self.model_id)

    @property
    @abstractmethod
    def prepares(self) -> bool:
        """Whether the run itself was told that its scans are prepared, or are to be."""

    @abstractmethod
    def scan_id(self, place: Place) -> str:
        """The id of a scan."""

    @abstractmethod
    def opened(self, warehouse: Store, places: Sequence[Place]) -> Iterator[OpenedScan]:
        """The scans, one after the other."""

    @abstractmethod
    def row(self, place: Place) -> Mapping[str, Any]:
        """The row that `scans` has, or would have, of a scan. Raises BadInput if it cannot be read."""

    @abstractmethod
    def roles(self, place: Place) -> list[str]:
        """The modalities and masks that a scan was made of, known before it is read."""

    @abstractmethod
    def is_dicom(self, place: Place) -> bool:
        """Whether the DICOM series of a scan are at hand."""

    @abstractmethod
    def series(self, place: Place, role: str) -> list[bytes]:
        """The files of one DICOM series of a scan. Raises BadInput where none is at hand."""


@dataclass(frozen=True)
class StoredJob(SegmentJob[ScanPlace]):
    """A segmentation of the scans of the tables."""

    prepares: bool = field(default=False, kw_only=True)

    def scan_id(self, place: ScanPlace) -> str:
        """The id of a scan."""
        return place.scan_id

    def opened(self, warehouse: Store, places: Sequence[ScanPlace]) -> Iterator[OpenedScan]:
        """The scans; rows of `scans` are read part by part."""
        by_part: defaultdict[str, list[ScanPlace]] = defaultdict(list)
        for place in places:
            by_part[place.part].append(place)
        for part, members in by_part.items():
            rows = scan_rows(warehouse, part, [place.scan_id for place in members])
            yield from (_StoredScan(warehouse, place, rows[place.scan_id], self) for place in members)

    def row(self, place: ScanPlace) -> Mapping[str, Any]:
        """The row of `scans`."""
        return scan_rows(Store(self.warehouse), place.part, [place.scan_id])[place.scan_id]

    def roles(self, place: ScanPlace) -> list[str]:
        """The modalities and masks that a scan was made of."""
        return [file["role"] for file in self.row(place)["files"]]

    def is_dicom(self, place: ScanPlace) -> bool:
        """The tables hold no series."""
        return False

    def series(self, place: ScanPlace, role: str) -> list[bytes]:
        """The tables hold no series: BadInput."""
        problem = f"Series {role} of scan {place.scan_id} is not in the tables"
        raise BadInput(Reason.UNSUPPORTED, problem, "name its archive with --source")


@dataclass(frozen=True)
class ArchivedJob(SegmentJob[ScanSource]):
    """A segmentation of the scans of an archive; `reader` reads them as ingest does."""

    reader: ingest_task.IngestJob = field(kw_only=True)

    @property
    def prepares(self) -> bool:
        """Whether the run itself was told to prepare its scans."""
        return self.reader.settings.prepare

    def scan_id(self, place: ScanSource) -> str:
        """The id of a scan."""
        return self.reader.scan_id(place)

    def opened(self, warehouse: Store, places: Sequence[ScanSource]) -> Iterator[OpenedScan]:
        """The scans, one after the other."""
        return (_ArchivedScan(place, self, self.reader) for place in places)

    def row(self, place: ScanSource) -> Mapping[str, Any]:
        """The row that `scans` would have. Raises BadInput if the scan cannot be read."""
        return ingest_task.scan_row(ingest_task.load(place, self.reader), self.reader)

    def roles(self, place: ScanSource) -> list[str]:
        """The modalities and masks that a scan is made of."""
        return [file.role for file in place.files]

    def is_dicom(self, place: ScanSource) -> bool:
        """Whether the scan was read from DICOM series."""
        return place.layout == _DICOM

    def series(self, place: ScanSource, role: str) -> list[bytes]:
        """The files of the series of a role."""
        paths = next(file.paths for file in place.files if file.role == role)
        fs, root, _ = open_root(self.reader.settings.source)
        try:
            unpacked = packed.contents(fs, root, paths)
        except BadInput as error:
            told = self.reader.naming.message(error.problem, paths, place.is_dicom)
            raise BadInput(error.reason, told, error.remedy) from None
        return [unpacked[path] if path in unpacked else fs.cat_file(files.join(root, path)) for path in paths]


def bad_fingerprint(scan_fingerprint: str, model_id: str) -> str:
    """`SegmentJob.bad_fingerprint`, before there is a job."""
    content = "\0".join((scan_fingerprint, model_id, segpipe.__version__))
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Candidate(Generic[Place]):
    """A scan that could be segmented; `unfit` says why the model cannot take it, where that is seen at sight."""

    scan_id: str
    fingerprint: str
    place: Place
    unfit: BadInput | None = None


def quarantine_row(
    job: SegmentJob[Any], scan_id: str | None, paths: Sequence[str], fingerprint: str, error: BadInput
) -> dict[str, Any]:
    """A row of `quarantine` for a scan that this model cannot segment; `fingerprint` is that of the scan."""
    bad = job.bad_fingerprint(fingerprint)
    return quarantine.row("segment", job.run_id, job.cohort, scan_id, paths, error.reason, str(error), bad)


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


@dataclass(frozen=True)
class _StoredScan:
    """A scan whose slices stand in the tables."""

    warehouse: Store
    place: ScanPlace
    row: dict[str, Any]
    job: StoredJob

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
    job: ArchivedJob
    reader: ingest_task.IngestJob
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
            row |= {"placed": placed, "brain": packed_brain(scan.brain)}
        return row, _LoadedSlices(scan, self.job.modalities)

    def _raise_what_is_lost(self) -> None:
        """Raise what is wrong with a file that dropped out, if the model looks at its modality.

        A DICOM series has a row of its own too, by which the next run knows that another must take its place.
        """
        wanted = {file.path for file in self.source.files if file.role in self.job.modalities}
        for one in self.lost:
            if wanted & set(one.paths):
                if not one.is_dicom:
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

    def __init__(self, scan: LoadedScan, modalities: Sequence[str]):
        self._channels = [scan.images[name] for name in modalities]
        self._brain = np.flatnonzero(scan.brain_pixels)
        self.truth = None if scan.mask is None else scan.mask.astype(np.uint8)

    def __iter__(self) -> Iterator[SliceBatch]:
        for start in range(0, len(self._brain), _LOADED_SLICES):
            chosen = self._brain[start : start + _LOADED_SLICES]
            yield chosen.tolist(), [channel[chosen] for channel in self._channels]
