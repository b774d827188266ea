"""The table `changes`: what became of a patient's regions from visit to visit, where visits share a space.

It is made from `scans`, `segmentations` and `predictions` whenever `segment` has run. A patient of whom nothing changed
keeps the rows, and a run that was killed in between is made good by the next.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

import segpipe
from segpipe.core import follow_up as core
from segpipe.core.metrics import counts, dice
from segpipe.core.regions import CONVENTIONS
from segpipe.core.runs import region_runs
from segpipe.errors import BadInput, NotFound, Reason, TableError
from segpipe.pipelines import attempts
from segpipe.warehouse import checked
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.predicted import PredictedPlace, label_map, predicted_places
from segpipe.warehouse.scan_slices import ScanPlace, scan_places
from segpipe.warehouse.slices import stream
from segpipe.warehouse.store import Store, cohort_slug
from segpipe.warehouse.tables import CHANGES, SEGMENTATIONS, SERIES, SLICES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.segment_job import SegmentJob
    from segpipe.warehouse.runs import RunRecord

LEAST_BRAINS_DICE = 0.9
"""Two visits in one space show nearly the same brain; below this, the grids are equal and the spaces are not."""

_SCAN_COLUMNS = (
    *("scan_id", "cohort", "subject", "session", "split", "space", "shape", "affine", "orientation", "flags"),
    "fingerprint",
)
_MEASURES = ("scan_id", "region", "volume_ml", "longest_diameter_mm", "perpendicular_diameter_mm")
_DAY_SECONDS = 86400.0
_IDENTITY = ("cohort", "subject", "session", "split", "fingerprint")
_THIRD = (slice(None, None, 3),) * 3


@dataclass(frozen=True)
class Visit:
    """A scan of a patient that is segmented: what `scans` tells of it, its rows of `segmentations` by region.

    `stored` is None for a scan of an archive, of which nothing but predictions was kept.
    """

    scan: Mapping[str, Any]
    regions: Mapping[str, Mapping[str, Any]]
    stored: ScanPlace | None
    predicted: PredictedPlace
    seconds: float | None

    @property
    def session(self) -> str:
        """As in `scans`."""
        return str(self.scan["session"])


Patient = tuple[tuple[Visit, ...], str]
"""Visits in order, and the fingerprint of what they rest on."""
Compared = tuple[list[dict[str, Any]], str | None]
"""Rows of a patient, or why there are none."""


def follow_up(spark: SparkSession, job: SegmentJob[Any], run: RunRecord) -> None:
    """Bring the rows of a cohort and model in `changes` up to date, and tell which patients cannot be compared."""

    def on_cluster(work: Callable[[Patient], Compared], patients: Sequence[Patient]) -> list[Compared]:
        def compare(patient: Patient, watch: attempts.Watch) -> Compared:
            subject = patient[0][0].scan["subject"]
            try:
                watch.enter(subject, f"Patient {subject}")
            except BadInput as error:
                return [], error.problem
            return work(patient)

        return attempts.each(spark, Store(job.warehouse), job.run_id, patients, compare)

    bring_up_to_date(job, run, on_cluster)


def bring_up_to_date(
    job: SegmentJob[Any],
    run: RunRecord,
    do: Callable[[Callable[[Patient], Compared], Sequence[Patient]], Iterable[Compared]],
) -> None:
    """What `follow_up` does; `do` calls a function for each patient, wherever that is."""
    warehouse = Store(job.warehouse)
    patients, untold = _patients(warehouse, job)
    known = _known(warehouse, job)
    prints = {subject: _fingerprint(visits) for subject, visits in patients.items()}
    kept = [row for row in known if prints.get(row["subject"]) == row["fingerprint"]]
    done = {row["subject"] for row in kept}
    todo = [(tuple(visits), prints[subject]) for subject, visits in patients.items() if subject not in done]
    fresh: list[dict[str, Any]] = []
    for rows, problem in do(partial(_compare, job.warehouse, job.model_id, job.run_id), todo) if todo else ():
        fresh += rows
        untold += [problem] if problem else []
    if fresh or len(kept) < len(known):
        _write(warehouse, job, [*kept, *fresh])
    run.count("changes", len(fresh))
    if untold:
        run.count("patients_not_compared", len(untold))
        run.lines.append(f"{len(untold)} patients with several visits were not compared, such as: {untold[0]}")


def _compare(url: str, model_id: str, run_id: str, patient: Patient) -> Compared:
    try:
        return rows_of(Store(url), patient[0], model_id, patient[1], run_id), None
    except (BadInput, TableError) as error:
        return [], error.problem
    except OSError:
        raise
    except Exception as error:  # such as memory that ran out: no patient stops the others
        return [], f"visits of {patient[0][0].scan['subject']} made their comparison fail ({type(error).__name__})"


def rows_of(
    warehouse: Store, visits: Sequence[Visit], model_id: str, fingerprint: str, run_id: str
) -> list[dict[str, Any]]:
    """The rows of a patient with at least two visits on one grid, in order.

    Raises BadInput if the brains lie apart, and TableError if a table is damaged.
    """
    labels = [_regions(warehouse, visit) for visit in visits]
    brains = _brains(warehouse, visits)
    agreement = [dice(*counts(one, other)) for one, other in pairwise(brains)]
    if not min(agreement) >= LEAST_BRAINS_DICE:
        raise BadInput(
            Reason.GRID_MISMATCH,
            f"brains of {visits[0].scan['subject']} lie apart (Dice {min(agreement):.2f}, least {LEAST_BRAINS_DICE})",
            "look at the preparation of both visits",
        )
    affine = np.reshape(visits[0].scan["affine"], (4, 4))
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    rows = []
    for region in visits[0].regions:
        products = core.product_changes([_product_mm2(visit.regions[region]) for visit in visits])
        for place, product in enumerate(products, start=1):
            lesions = core.lesion_changes(labels[place - 1][region], labels[place][region], affine)
            row = _row(visits, place, region, product, lesions, voxel_ml)
            row |= {"brains_dice": agreement[place - 1], "model_id": model_id}
            rows.append(row | {"fingerprint": fingerprint, "run_id": run_id})
    return rows


def _row(
    visits: Sequence[Visit],
    place: int,
    region: str,
    product: core.ProductChange,
    lesions: Sequence[core.LesionChange],
    voxel_ml: float,
) -> dict[str, Any]:
    baseline, previous, now = visits[0], visits[place - 1], visits[place]
    fates = [lesion.fate for lesion in lesions]
    return {
        **{name: now.scan[name] for name in ("scan_id", "cohort", "subject", "session", "split")},
        "region": region,
        "previous_session": previous.session,
        "baseline_session": baseline.session,
        "nadir_session": visits[product.nadir].session,
        "days_since_previous": _days(previous, now),
        "days_since_baseline": _days(baseline, now),
        "volume_ml": now.regions[region]["volume_ml"],
        "previous_volume_ml": previous.regions[region]["volume_ml"],
        "baseline_volume_ml": baseline.regions[region]["volume_ml"],
        "product_mm2": product.product_mm2,
        "baseline_product_mm2": product.baseline_mm2,
        "nadir_product_mm2": product.nadir_mm2,
        "change_from_baseline": _number(product.from_baseline),
        "change_from_nadir": _number(product.from_nadir),
        "decrease_threshold": core.PRODUCT_DECREASE,
        "increase_threshold": core.PRODUCT_INCREASE,
        **{f"{fate}_lesions": fates.count(fate) for fate in (core.NEW, core.GONE, core.GROWN, core.SHRUNK)},
        "lesions": [
            {
                "fate": lesion.fate,
                "volume_before_ml": lesion.voxels_before * voxel_ml,
                "volume_ml": lesion.voxels * voxel_ml,
                "centroid_mm": list(lesion.centroid_mm),
            }
            for lesion in lesions
        ],
        "flags": sorted({*(previous.scan["flags"] or ()), *(now.scan["flags"] or ())}),
    }


def _patients(warehouse: Store, job: SegmentJob[Any]) -> tuple[dict[str, list[Visit]], list[str]]:
    """Patients with several visits that can be compared, these in order; and why others cannot be."""
    scans = _stored(warehouse, job.cohort)
    measured = _measured(warehouse, job)
    known = {**{one: rows[0] for one, rows in measured.items()}, **scans}
    by_subject: defaultdict[str, list[str]] = defaultdict(list)
    for scan_id, row in known.items():
        by_subject[row["subject"]].append(scan_id)
    wanted = {scan_id for ids in by_subject.values() if len(ids) > 1 for scan_id in ids}
    if not wanted:
        return {}, []
    predicted = predicted_places(warehouse, job.cohort, job.model_id)
    stored = scan_places(warehouse, job.cohort) if scans else {}
    moments = _moments(warehouse, job.cohort)
    found, untold = {}, []
    for subject, ids in sorted(by_subject.items()):
        candidates = [_visit(one, scans, measured, stored, predicted, moments) for one in ids if one in wanted]
        visits = [visit for visit in candidates if visit is not None]
        if len(visits) < 2:
            continue
        ordered = core.in_order({visit.session: visit.seconds for visit in visits})
        if ordered is None:
            untold.append(f"nothing tells which visit of {subject} came first")
        elif not _on_one_grid(visits):
            untold.append(f"visits of {subject} are in no common space: ingest with --prepare")
        else:
            found[subject] = sorted(visits, key=lambda visit: ordered.index(visit.session))
    return found, untold


def _visit(
    scan_id: str,
    scans: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    stored: Mapping[str, ScanPlace],
    predicted: Mapping[str, PredictedPlace],
    moments: Mapping[str, float],
) -> Visit | None:
    """A visit whose prediction is of the scan that stands in the tables, or of one that stands in none."""
    if scan_id not in predicted or scan_id not in measured:
        return None
    place = predicted[scan_id]
    regions = {row["region"]: row for row in measured[scan_id]}
    if scan_id in scans and place.fingerprint == scans[scan_id]["fingerprint"]:
        return Visit(scans[scan_id], regions, stored[scan_id], place, moments.get(scan_id))
    first = measured[scan_id][0]
    if first["placed"] is None or place.fingerprint != first["fingerprint"]:
        return None
    return Visit({**first, **first["placed"]}, regions, None, place, first["placed"]["moment"])


def _stored(warehouse: Store, cohort: str) -> dict[str, dict[str, Any]]:
    """Rows of `scans` by scan_id; none where a cohort was segmented but never ingested."""
    try:
        return {row["scan_id"]: row for row in warehouse.scans(cohort, _SCAN_COLUMNS).to_pylist()}
    except NotFound:
        return {}


def _on_one_grid(visits: Sequence[Visit]) -> bool:
    first = visits[0].scan
    return first["space"] is not None and all(
        all(visit.scan[name] == first[name] for name in ("space", "shape", "orientation"))
        and np.allclose(visit.scan["affine"], first["affine"], atol=1e-3)
        for visit in visits
    )


def _measured(warehouse: Store, job: SegmentJob[Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of `segmentations` by scan."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in warehouse.rows(SEGMENTATIONS, (*_MEASURES, *_IDENTITY, "model_id", "placed"), job.cohort).to_pylist():
        if row["model_id"] == job.model_id:
            found[row["scan_id"]].append(row)
    return found


def _moments(warehouse: Store, cohort: str) -> dict[str, float]:
    """When each scan of DICOM series began, on its patient's own clock."""
    if not warehouse.parts(SERIES.name):
        return {}
    table = warehouse.table(SERIES.name).to_table(["scan_id", "moment"], filter=ds.field("cohort") == cohort)
    found: dict[str, float] = {}
    for row in table.to_pylist():
        if row["scan_id"] is not None and row["moment"] is not None:
            found[row["scan_id"]] = min(row["moment"], found.get(row["scan_id"], row["moment"]))
    return found


def _known(warehouse: Store, job: SegmentJob[Any]) -> list[dict[str, Any]]:
    if not warehouse.parts(CHANGES.name):
        return []
    wanted = (ds.field("cohort") == job.cohort) & (ds.field("model_id") == job.model_id)
    return list(warehouse.table(CHANGES.name).to_table(filter=wanted).to_pylist())


def _write(warehouse: Store, job: SegmentJob[Any], rows: Iterable[Mapping[str, Any]]) -> None:
    name = f"{cohort_slug(job.cohort)}.{job.model_id}"
    ordered = sorted(rows, key=lambda row: (row["subject"], row["region"], row["session"]))
    if not ordered:
        warehouse.fs.rm_file(warehouse.path(CHANGES.name, f"{name}.parquet"))
        return
    with PartWriter(warehouse, (CHANGES,), name, job.run_id, job.fence) as part:
        part.write(CHANGES.name, pa.Table.from_pylist(ordered, CHANGES.schema))


def _fingerprint(visits: Sequence[Visit]) -> str:
    """What must be equal for a patient's rows to be the same again."""
    content = [segpipe.__version__]
    for visit in visits:
        content += [visit.scan["scan_id"], visit.scan["fingerprint"], visit.predicted.run_id, str(visit.seconds)]
    return hashlib.sha256("\0".join(content).encode()).hexdigest()


def _regions(warehouse: Store, visit: Visit) -> dict[str, Any]:
    labels, convention = label_map(warehouse, visit.predicted, visit.scan["shape"])
    return region_runs(labels, CONVENTIONS[convention].regions)


def packed_brain(brain: np.ndarray) -> bytes:
    """Every third voxel of a brain, bool (S, H, W), as the column `brain` of `segmentations` holds it."""
    return zlib.compress(np.packbits(brain[_THIRD]).tobytes())


def _brains(warehouse: Store, visits: Sequence[Visit]) -> list[np.ndarray]:
    """The brains of visits on one grid: all voxels, or every third of all where that is what was kept of one."""
    if all(visit.stored is not None for visit in visits):
        return [_brain(warehouse, visit) for visit in visits]
    return [_packed_brain(warehouse, one) if one.stored is None else _brain(warehouse, one)[_THIRD] for one in visits]


def _packed_brain(warehouse: Store, visit: Visit) -> np.ndarray:
    path = warehouse.path(SEGMENTATIONS.name, f"{visit.predicted.part}.parquet")
    with checked.open_part(warehouse.fs, path) as part:
        rows = part.read(["scan_id", "brain"]).to_pylist()
    content = next(row["brain"] for row in rows if row["scan_id"] == visit.scan["scan_id"])
    shape = tuple(-(-edge // 3) for edge in visit.scan["shape"])
    bits = np.unpackbits(np.frombuffer(zlib.decompress(content), np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def _brain(warehouse: Store, visit: Visit) -> np.ndarray:
    """Where the first modality of a scan that shows a brain alone has another value than in its corner."""
    assert visit.stored is not None  # the caller has looked
    path = warehouse.path(SLICES.name, f"{visit.stored.part}.parquet")
    found = np.zeros(visit.scan["shape"], bool)
    outside = None
    for batch in stream(path, warehouse.fs, visit.stored.row_groups, ["image"]):
        assert batch.image is not None  # it was asked for
        planes = batch.image[0]
        outside = planes[0, 0, 0] if outside is None else outside
        found[batch.slice_index] = planes != outside
    return found


def _product_mm2(row: Mapping[str, Any]) -> float:
    return (row["longest_diameter_mm"] or 0.0) * (row["perpendicular_diameter_mm"] or 0.0)


def _days(before: Visit, now: Visit) -> float | None:
    if before.seconds is None or now.seconds is None:
        return None
    return (now.seconds - before.seconds) / _DAY_SECONDS


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
