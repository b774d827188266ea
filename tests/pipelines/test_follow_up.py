"""The table `changes` of visits whose regions are known."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from segpipe.pipelines import follow_up as module
from segpipe.pipelines.follow_up import bring_up_to_date, follow_up, packed_brain
from segpipe.pipelines.measures import region_rows
from segpipe.pipelines.segment_job import StoredJob
from segpipe.storage.lock import Fence, lock
from segpipe.warehouse import slices
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import PREDICTIONS, SCANS, SEGMENTATIONS, SLICES
from tests.pipelines.deadly import In
from tests.warehouse.examples import scan_row

SHAPE = (12, 24, 24)
MODEL = "m-1"
BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:11, 2:22, 2:22] = True


def tumour(*cubes: tuple[int, int]) -> np.ndarray:
    """Label 2 in cubes (place along the row, edge)."""
    labels = np.zeros(SHAPE, np.uint8)
    for place, edge in cubes:
        labels[4 : 4 + edge, 4 : 4 + edge, place : place + edge] = 2
    return labels


def write(
    warehouse: Store,
    fence: Fence,
    subject: str,
    session: str,
    labels: np.ndarray,
    shift: int = 0,
    stored: bool = True,
    **changes: Any,
) -> None:
    """A prepared scan, if it is to be `stored`, and what the model predicted of it, each in a part of its own."""
    row = scan_row(subject, "c", shape=list(SHAPE), scan_id=f"c:{subject}:{session}", session=session)
    row |= {"brain_voxels": int(BRAIN.sum()), "brain_box": [1, 11, 2, 22, 2, 22], "space": "brain-1mm", "flags": []}
    row |= {"label_convention": "brats", "fingerprint": f"{subject} {session}", **changes}
    brain = np.roll(BRAIN, shift, axis=2)
    channels = [np.where(brain, 7, 0).astype(np.int16), np.where(brain, 3, 0).astype(np.float32)]
    name = f"{subject}-{session}"
    kept: dict[str, Any] = {}
    if stored:
        with PartWriter(warehouse, (SLICES, SCANS), name, fence.run_id, fence) as part:
            for batch in slices.row_groups(row, channels, None, brain, group_bytes=1 << 20):
                part.write("slices", batch)
            part.write("scans", pa.Table.from_pylist([row], SCANS.schema))
    else:
        placed = {one: row.get(one) for one in ("space", "shape", "orientation", "affine", "flags")}
        kept = {"placed": placed | {"follows": None, "moment": None}, "brain": packed_brain(brain)}
    identity = {"scan_id": row["scan_id"], "cohort": "c", "subject": subject, "model_id": MODEL, "run_id": "s1"}
    planes = [
        identity
        | {"slice_index": index, "height": SHAPE[1], "width": SHAPE[2], "label_convention": "brats"}
        | {"mask": plane.tobytes(), "region_pixels": []}
        for index, plane in enumerate(labels)
    ]
    measured = region_rows(row, labels, "brats", None, {}, {})
    with PartWriter(warehouse, (PREDICTIONS, SEGMENTATIONS), name, fence.run_id, fence) as part:
        part.write("predictions", pa.Table.from_pylist(planes, PREDICTIONS.schema))
        found = [one | {"model_id": MODEL, "run_id": "s1"} | kept for one in measured]
        part.write("segmentations", pa.Table.from_pylist(found, SEGMENTATIONS.schema))


def job(warehouse: Store, fence: Fence) -> StoredJob:
    return StoredJob(warehouse.url, "c", MODEL, ("flair",), "SPL", "brats", fence)


def record() -> RunRecord:
    return RunRecord("r2", "segment", "c", datetime.now(timezone.utc), {})


def run_job(warehouse: Store, fence: Fence) -> RunRecord:
    run = record()
    bring_up_to_date(job(warehouse, fence), run, map)
    return run


def rows(warehouse: Store, **where: str) -> list[dict[str, Any]]:
    found = warehouse.table("changes").to_table().to_pylist()
    return [row for row in found if all(row[name] == value for name, value in where.items())]


@pytest.mark.process  # a lock asks the machine for its name
def test_visits_in_one_space_are_compared(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path))
    with lock(warehouse.url, "predictions-c", 5, "r1") as fence:
        for session, labels in {"1": tumour((3, 4)), "2": tumour((3, 2)), "10": tumour((3, 3), (14, 2))}.items():
            write(warehouse, fence, "p", session, labels, flags=["metric:T2"] if session == "2" else [])
        write(warehouse, fence, "native", "1", tumour((3, 4)), space=None)
        write(warehouse, fence, "native", "2", tumour((3, 4)), space=None)
        write(warehouse, fence, "apart", "1", tumour((3, 4)))
        write(warehouse, fence, "apart", "2", tumour((3, 4)), shift=4)
        write(warehouse, fence, "single", "1", tumour((3, 4)))
        run = run_job(warehouse, fence)
        assert run.counts == {"changes": 6, "patients_not_compared": 2}
        second, third = sorted(rows(warehouse, region="whole_tumour"), key=lambda row: len(row["session"]))
        assert {row["subject"] for row in rows(warehouse)} == {"p"}
        assert (second["session"], second["previous_session"], second["nadir_session"]) == ("2", "1", "1")
        assert (third["session"], third["previous_session"], third["nadir_session"]) == ("10", "2", "2")
        assert (second["volume_ml"], second["baseline_volume_ml"]) == pytest.approx((0.008, 0.064))
        assert third["change_from_nadir"] == pytest.approx(third["product_mm2"] / second["product_mm2"] - 1)
        assert third["change_from_baseline"] == pytest.approx(third["product_mm2"] / second["baseline_product_mm2"] - 1)
        assert (third["decrease_threshold"], third["increase_threshold"]) == (-0.5, 0.25)
        assert (third["new_lesions"], third["grown_lesions"], third["gone_lesions"]) == (1, 1, 0)
        assert [lesion["volume_ml"] for lesion in third["lesions"]] == pytest.approx([0.027, 0.008])
        assert (third["brains_dice"], third["flags"]) == (1.0, ["metric:T2"])
        assert rows(warehouse, region="enhancing_tumour", session="2")[0]["change_from_baseline"] is None
        before = {path.name: path.stat().st_ino for path in (tmp_path / "changes").iterdir()}
        assert run_job(warehouse, fence).counts["changes"] == 0  # what is known is not computed again
        assert {path.name: path.stat().st_ino for path in (tmp_path / "changes").iterdir()} == before
        write(warehouse, fence, "p", "1", tumour((3, 3)), fingerprint="another")
        assert run_job(warehouse, fence).counts["changes"] == 6
        assert rows(warehouse, region="whole_tumour", session="10")[0]["baseline_volume_ml"] == pytest.approx(0.027)
        write(warehouse, fence, "p", "1", tumour((3, 3)), space=None)
        run_job(warehouse, fence)
        assert rows(warehouse) == []


@pytest.mark.process
def test_visits_of_which_only_predictions_are_kept_are_compared_too(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path))
    with lock(warehouse.url, "predictions-c", 5, "r1") as fence:
        for subject, stored in {"archive": False, "mixed": True}.items():
            write(warehouse, fence, subject, "1", tumour((3, 4)), stored=stored)
            write(warehouse, fence, subject, "2", tumour((3, 2)), stored=False, flags=["baseline_overlap"])
        write(warehouse, fence, "apart", "1", tumour((3, 4)), stored=False)
        write(warehouse, fence, "apart", "2", tumour((3, 4)), shift=4, stored=False)
        run = run_job(warehouse, fence)
        assert run.counts == {"changes": 6, "patients_not_compared": 1}
        assert "brains of apart lie apart" in run.lines[0]
        for row in rows(warehouse, region="whole_tumour"):
            assert (row["previous_session"], row["session"], row["shrunk_lesions"]) == ("1", "2", 1)
            assert (row["volume_ml"], row["previous_volume_ml"]) == pytest.approx((0.008, 0.064))
            assert (row["brains_dice"], row["flags"]) == (1.0, ["baseline_overlap"])
        assert {row["subject"] for row in rows(warehouse)} == {"archive", "mixed"}


def test_patients_are_compared_where_the_cores_are(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path))
    with lock(warehouse.url, "predictions-c", 5, "r1") as fence:
        for session in ("1", "2"):
            write(warehouse, fence, "p", session, tumour((3, 4)))
        follow_up(spark, job(warehouse, fence), run := record())
        assert run.counts["changes"] == 3
        assert {row["lesions"][0]["fate"] for row in rows(warehouse, region="whole_tumour")} == {"same"}


def test_a_patient_that_kills_whoever_compares_its_visits_stops_no_other(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    In(module, "_compare", module, "rows_of", lambda _, visits, *__: visits[0].scan["subject"] == "q").put(monkeypatch)
    warehouse = Store(str(tmp_path))
    with lock(warehouse.url, "predictions-c", 5, "r1") as fence:
        for subject, session in product("pqr", "12"):
            write(warehouse, fence, subject, session, tumour((3, 4)))
        follow_up(spark, job(warehouse, fence), run := record())
    assert run.counts == {"changes": 6, "patients_not_compared": 1}
    assert "Patient q killed 2 workers" in run.lines[0]
    assert {row["subject"] for row in rows(warehouse)} == {"p", "r"}


@pytest.mark.process
def test_a_patient_whose_comparison_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_of = module.rows_of

    def failing(*arguments: Any) -> list[dict[str, Any]]:
        if arguments[1][0].scan["subject"] == "p":
            raise MemoryError
        return rows_of(*arguments)

    monkeypatch.setattr(module, "rows_of", failing)
    warehouse = Store(str(tmp_path))
    with lock(warehouse.url, "predictions-c", 5, "r1") as fence:
        for subject, session in product("pq", "12"):
            write(warehouse, fence, subject, session, tumour((3, 4)))
        run = run_job(warehouse, fence)
    assert run.counts == {"changes": 3, "patients_not_compared": 1}
    assert "visits of p made their comparison fail (MemoryError)" in run.lines[0]
