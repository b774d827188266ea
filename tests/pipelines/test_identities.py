"""A patient of the tables who would come into them under a second name, and so perhaps into a second split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from segpipe.core.splits import SplitRule
from segpipe.errors import Reason
from segpipe.pipelines import ingest, segment, segment_job, series_rows
from segpipe.pipelines.ingest_task import IngestJob
from segpipe.readers.archive import Listing
from segpipe.readers.naming import Naming, SubjectKey
from segpipe.readers.sources import find
from segpipe.settings import IngestSettings
from segpipe.storage.lock import Fence, lock
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import PREDICTIONS, SEGMENTATIONS
from tests.readers.hospital import studies, write
from tests.warehouse.examples import RULE
from tests.warehouse.examples import write_part as write_rows

KEY = SubjectKey(b"a secret of more than sixteen bytes")


def listed(folder: Path, patient: str) -> Listing:
    """An archive of one visit, with this PatientID."""
    study = studies()[0]
    write(folder, replace(study, extra={**study.extra, "PatientID": patient}).only("t1 ax", "flair"))
    return find(str(folder), "dicom", KEY.secret)


def ingested(tmp_path: Path) -> tuple[Store, Listing, Listing]:
    """Tables of an archive, its listing, and that of the same archive after its PatientID was changed."""
    warehouse = Store(str(tmp_path / "w"))
    before, after = listed(tmp_path / "before", "4711"), listed(tmp_path / "after", "4712")
    (scan,) = before.scans
    scan_id = f"c:{scan.subject}:{scan.session}"
    write_rows(warehouse, "part", [scan.subject], scan_id=scan_id, session=scan.session, modalities=["flair", "t1"])
    with lock(warehouse.url, "slices-c", 1.0, "r1") as fence:
        series_rows.keep(warehouse, fence, "c", series_rows.rows(before.series, "c", "r1"))
    return warehouse, before, after


def reader(warehouse: Store) -> IngestJob:
    rule = SplitRule.parse(str(RULE))
    settings = IngestSettings(source="s", warehouse=warehouse.url, cohort="c")
    return IngestJob(settings, rule, Fence(warehouse.url, "slices-c", 1, "r2"), Naming(KEY))


def test_a_visit_whose_patient_id_was_changed_is_not_written_beside_its_old_rows(tmp_path: Path) -> None:
    warehouse, before, after = ingested(tmp_path)
    plan = ingest.plan_ingest(warehouse, reader(warehouse), after, warehouse.index("c"), 1)
    assert (plan.tasks, [one.reason for one in plan.rejected]) == ([], [Reason.DUPLICATE])
    assert f"c:{before.scans[0].subject}:{before.scans[0].session}" in plan.rejected[0].message
    elsewhere = replace(after, series=())
    assert ingest.plan_ingest(warehouse, reader(warehouse), elsewhere, warehouse.index("c"), 1).tasks


def test_nor_is_it_segmented(tmp_path: Path) -> None:
    warehouse, before, after = ingested(tmp_path)
    fence = Fence(warehouse.url, "predictions-c-m", 1, "r2")
    job = segment_job.ArchivedJob(warehouse.url, "c", "m", (), "SPL", "brats", fence, reader=reader(warehouse))
    plan = segment.plan_archived(warehouse, job, after, {}, False, 1)
    assert (plan.tasks, [row["reason"] for row in plan.unfit]) == ([], [Reason.DUPLICATE])
    assert len(segment.plan_archived(warehouse, job, before, {}, False, 1).tasks) == 1


def test_sessions_that_were_segmented_tell_their_subject(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path / "w"))
    with PartWriter(warehouse, (PREDICTIONS, SEGMENTATIONS), "part", "r1") as part:
        for subject, session in (("p", "v1"), ("q", "v2"), ("p", "day"), ("q", "day")):
            row = dict.fromkeys(SEGMENTATIONS.schema.names) | {
                **{"scan_id": f"c:{subject}:{session}", "cohort": "c", "subject": subject, "session": session},
                **{"split": "train", "model_id": "m", "voxels": 1, "volume_ml": 0.1, "lesions": 1, "qc_flags": []},
                "run_id": "r1",
            }
            rows = [{**row, "region": region} for region in ("whole_tumour", "tumour_core")]
            part.write(SEGMENTATIONS.name, pa.Table.from_pylist(rows, SEGMENTATIONS.schema))
    settings = IngestSettings(source="s", warehouse=warehouse.url, cohort="c")
    assert series_rows.options(settings, warehouse, "c").visits() == {"v1": "p", "v2": "q"}
    assert series_rows.options(settings, warehouse, "other").visits() == {}
