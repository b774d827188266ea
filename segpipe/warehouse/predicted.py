"""Label maps in `predictions`: where each scan's slices stand, and the volume that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segpipe.errors import TableError
from segpipe.warehouse import checked
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import PREDICTIONS, SEGMENTATIONS

_FOOTER_THREADS = 8
MEASURES = ["scan_id", "model_id", "region", "volume_ml", "longest_diameter_mm", "perpendicular_diameter_mm"]
PLANE_COLUMNS = ["slice_index", "mask", "label_convention"]


@dataclass(frozen=True)
class PredictedPlace:
    """Where a scan's predictions stand: part and row groups; which scan and run they were made from and by."""

    scan_id: str
    part: str
    row_groups: tuple[int, ...]
    fingerprint: str
    run_id: str


def predicted_places(warehouse: Store, cohort: str, model_id: str) -> dict[str, PredictedPlace]:
    """What a model has predicted of a cohort, by scan_id, from `segmentations` and the footers of `predictions`."""
    rows = warehouse.rows(SEGMENTATIONS, ["scan_id", "fingerprint", "run_id", "model_id"], cohort)
    by_part: defaultdict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows.filter(pc.equal(rows["model_id"], model_id)).to_pylist():
        by_part[row["part"]][row["scan_id"]] = row
    names = sorted(by_part)
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        scans = list(pool.map(lambda part: _scans_of(warehouse, part), names))
    found = {}
    for part, in_groups in zip(names, scans, strict=True):
        members = by_part[part]
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for number, scan_id in enumerate(in_groups):
            groups[scan_id].append(number)
        for scan_id, row in members.items():
            found[scan_id] = PredictedPlace(scan_id, part, tuple(groups[scan_id]), row["fingerprint"], row["run_id"])
    return found


def measured(warehouse: Store, place: PredictedPlace, model_id: str) -> list[dict[str, Any]]:
    """The rows of `segmentations` of a scan and model, one a region, in the order in which they were written."""
    path = warehouse.path(SEGMENTATIONS.name, f"{place.part}.parquet")
    with checked.open_part(warehouse.fs, path) as part:
        rows = part.read(MEASURES).to_pylist()
    return [row for row in rows if (row["scan_id"], row["model_id"]) == (place.scan_id, model_id)]


def label_map(warehouse: Store, place: PredictedPlace, shape: Sequence[int]) -> tuple[np.ndarray, str]:
    """A scan's predicted label map, uint8 of `shape` (slices, rows, columns), and the name of its label convention.

    Raises TableError if the slices are not those of such a scan.
    """
    path = warehouse.path(PREDICTIONS.name, f"{place.part}.parquet")
    with checked.open_part(warehouse.fs, path) as parquet:
        groups = (parquet.row_group(number, PLANE_COLUMNS) for number in place.row_groups)
        return assembled(groups, shape, f"{place.scan_id} in {path}")


def assembled(rows: Iterable[pa.Table], shape: Sequence[int], what: str) -> tuple[np.ndarray, str]:
    """The label map that rows of `predictions` make, and the name of its label convention, empty without rows.

    The rows are those of one scan and model, with PLANE_COLUMNS; `what` says whose they are. Raises TableError if a
    slice is missing, there twice, or of another size.
    """
    labels = np.zeros(tuple(shape), np.uint8)
    seen: set[int] = set()
    count, convention = 0, ""
    for table in rows:
        for index, mask in zip(table["slice_index"].to_pylist(), table["mask"], strict=True):
            plane = np.frombuffer(mask.as_buffer(), np.uint8)
            if index >= shape[0] or plane.size != shape[1] * shape[2]:
                raise TableError(f"A mask of {what} does not fit its {tuple(shape)} voxels", "run segment again")
            labels[index] = plane.reshape(labels.shape[1:])
            seen.add(index)
            count += 1
        convention = (table["label_convention"].to_pylist() or [convention])[0] or ""
    if not len(seen) == count == shape[0]:
        problem = f"Prediction of {what} has {count} slices, {len(seen)} of them distinct, instead of {shape[0]}"
        raise TableError(problem, "run segment with --overwrite")
    return labels, convention


def _scans_of(warehouse: Store, part: str) -> list[str]:
    """The scan of each row group of a part of `predictions`, from the statistics in its footer."""
    metadata = checked.read_metadata(warehouse.fs, warehouse.path(PREDICTIONS.name, f"{part}.parquet"))
    column = metadata.schema.names.index("scan_id")
    return [metadata.row_group(number).column(column).statistics.min for number in range(metadata.num_row_groups)]
