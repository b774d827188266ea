"""Scans as a predictor wants them: what is known of one before its slices come, and these, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.core.orientation import spacing_mm
from segpipe.core.prediction import Model, Sample, ScanInput, SliceBatch
from segpipe.errors import BadInput, Reason, TableError
from segpipe.warehouse import checked
from segpipe.warehouse.slices import stream
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, SLICES, with_later_columns

SCAN_COLUMNS = [
    *("scan_id", "cohort", "subject", "session", "split", "label_convention", "modalities", "orientation", "shape"),
    *("affine", "brain_box", "brain_voxels", "files", "intensity", "label_counts", "fingerprint", "resampled_to"),
    *("space", "preparation", "flags"),
]
MASK = "mask"


@dataclass(frozen=True)
class ScanPlace:
    """Where a scan stands: its part of `scans` and `slices`, and its row groups in the latter."""

    scan_id: str
    part: str
    row_groups: tuple[int, ...]


def scan_places(warehouse: Store, cohort: str, splits: Sequence[str] | None = None) -> dict[str, ScanPlace]:
    """Where each scan of a cohort, or of some of its splits, stands, by scan_id."""
    return {
        scan.scan_id: ScanPlace(scan.scan_id, part.name, scan.row_groups)
        for part in warehouse.slice_parts(cohort, splits)
        for scan in part.scans
    }


def scan_rows(warehouse: Store, part: str, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of `scans` by scan_id, of these scans of one part."""
    with checked.open_part(warehouse.fs, warehouse.path(SCANS.name, f"{part}.parquet")) as parquet:
        found = [name for name in SCAN_COLUMNS if name in parquet.schema.names]
        table = with_later_columns(parquet.read(found), SCANS)
    rows = {row["scan_id"]: row for row in table.to_pylist()}
    return {scan_id: rows[scan_id] for scan_id in wanted}


def scan_input(scan: Mapping[str, Any], modalities: Sequence[str]) -> ScanInput:
    """What a predictor must know of a scan, from its row of `scans`, for these channels in this order."""
    files = {file["role"]: file for file in scan["files"]}
    intensity = {entry["modality"]: entry for entry in scan["intensity"]}
    return ScanInput(
        shape=tuple(scan["shape"]),
        mean=tuple(intensity[name]["mean"] for name in modalities),
        std=tuple(intensity[name]["std"] for name in modalities),
        slope=tuple(files[name]["slope"] for name in modalities),
        inter=tuple(files[name]["inter"] for name in modalities),
        brain_box=tuple(scan["brain_box"]),
        spacing_mm=tuple(spacing_mm(np.array(scan["affine"], np.float64).reshape(4, 4)).tolist()),
    )


class ScanSlices:
    """The slices of a scan that show brain, a row group at a time, as often as asked; the truth is gathered on the way.

    Raises BadInput if a cell is damaged.
    """

    def __init__(self, warehouse: Store, place: ScanPlace, scan: Mapping[str, Any], modalities: Sequence[str]):
        self._warehouse, self._place, self._scan = warehouse, place, scan
        self._channels = [scan["modalities"].index(name) for name in modalities]
        self.truth: np.ndarray | None = None

    def __iter__(self) -> Iterator[SliceBatch]:
        path = self._warehouse.path(SLICES.name, f"{self._place.part}.parquet")
        columns = ["image", "mask", "brain_pixels"]
        try:
            for batch in stream(path, self._warehouse.fs, self._place.row_groups, columns):
                if batch.mask is not None:
                    self._add_truth(batch.slice_index, batch.mask)
                assert batch.image is not None  # these columns were asked for
                assert batch.brain_pixels is not None
                brain = np.flatnonzero(batch.brain_pixels)
                if len(brain):
                    gapless = len(brain) == brain[-1] + 1 - brain[0]  # as most are: then nothing is copied
                    chosen = slice(brain[0], brain[-1] + 1) if gapless else brain
                    yield batch.slice_index[chosen].tolist(), [batch.image[at][chosen] for at in self._channels]
        except TableError as error:
            raise BadInput(Reason.CORRUPT, error.problem, error.remedy) from error

    def _add_truth(self, indices: np.ndarray, mask: np.ndarray) -> None:
        if self.truth is None:
            self.truth = np.zeros(self._scan["shape"], np.uint8)
        self.truth[indices] = mask


def read_planes(warehouse: Store, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All channels of a scan by modality, and its `mask` where it has one: stored values, (S, H, W) each.

    `row` is the scan's row of `scans`. Raises TableError if a slice is missing.
    """
    part, scan = next(
        (part, scan)
        for part in warehouse.slice_parts(row["cohort"], [row["split"]])
        for scan in part.scans
        if scan.scan_id == row["scan_id"]
    )
    batches = list(stream(part.path, warehouse.fs, scan.row_groups, ("image", "mask")))
    order = np.concatenate([batch.slice_index for batch in batches])
    if not np.array_equal(order, np.arange(row["shape"][0])):
        raise TableError(f"Slices of {row['scan_id']} in {part.path} are not in order", "ingest the scan again")
    channels = [np.concatenate(arrays) for arrays in zip(*(batch.image or () for batch in batches), strict=True)]
    planes = dict(zip(row["modalities"], channels, strict=True))
    masks = [batch.mask for batch in batches if batch.mask is not None]
    return {**planes, MASK: np.concatenate(masks)} if masks else planes


def read_channel(warehouse: Store, part: str, row: Mapping[str, Any], modality: str) -> np.ndarray:
    """One channel of a scan that stands in `part`, by its row of `scans`: stored values, (S, H, W)."""
    stored = warehouse.slice_part(part, [row])
    channel = row["modalities"].index(modality)
    found: list[np.ndarray] = [np.empty(0)] * row["shape"][0]
    for batch in stream(stored.path, warehouse.fs, stored.scans[0].row_groups, ["image"]):
        assert batch.image is not None  # it was asked for
        for index, plane in zip(batch.slice_index.tolist(), batch.image[channel], strict=True):
            found[index] = plane
    return np.stack(found)


def true_labels(warehouse: Store, place: ScanPlace, shape: Sequence[int]) -> np.ndarray | None:
    """A scan's true label map, uint8 of `shape` (slices, rows, columns); None if it has none."""
    truth = np.zeros(tuple(shape), np.uint8)
    path = warehouse.path(SLICES.name, f"{place.part}.parquet")
    for batch in stream(path, warehouse.fs, place.row_groups, ["mask"]):
        if batch.mask is None:
            return None
        truth[batch.slice_index] = batch.mask
    return truth


def samples(warehouse: Store, cohort: str, split: str, model: Model, most: int) -> list[Sample]:
    """Up to `most` scans of a split that a model can take, spread over the order of their ids; read when iterated.

    An empty list where the split has no such scan. Raises NotFound if the cohort has no scan.
    """
    places = scan_places(warehouse, cohort, [split])
    fitting = []
    for part in sorted({place.part for place in places.values()}):
        members = [place for place in places.values() if place.part == part]
        for scan_id, row in scan_rows(warehouse, part, [place.scan_id for place in members]).items():
            if row["orientation"] == model.orientation and set(model.modalities) <= set(row["modalities"]):
                fitting.append((scan_id, row))
    fitting.sort(key=lambda one: one[0])
    chosen = [fitting[number * len(fitting) // most] for number in range(most)] if len(fitting) > most else fitting
    return [_sample(warehouse, places[scan_id], row, model) for scan_id, row in chosen]


def _sample(warehouse: Store, place: ScanPlace, row: Mapping[str, Any], model: Model) -> Sample:
    return Sample(
        scan_id=place.scan_id,
        scan=scan_input(row, model.modalities),
        slices=ScanSlices(warehouse, place, row, model.modalities),
        label_convention=row["label_convention"],
        subject=row["subject"],
    )
