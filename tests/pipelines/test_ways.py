"""The way back of a prepared scan is kept until its masks are written."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segpipe.core.splits import SplitRule
from segpipe.pipelines import masks, ways
from segpipe.pipelines.attempts import Watch
from segpipe.pipelines.ingest_task import IngestJob
from segpipe.pipelines.segment_job import ArchivedJob
from segpipe.readers.archive import ScanSource, SourceFile
from segpipe.settings import IngestSettings
from segpipe.storage.lock import lock
from segpipe.warehouse.predicted import predicted_places
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import FILE
from tests.pipelines.test_follow_up import MODEL, tumour, write
from tests.warehouse.examples import scan_row


@pytest.mark.process  # a lock asks the machine for its name
def test_a_scan_is_not_prepared_again_for_its_masks(tmp_path: Path) -> None:
    """Its source is gone: a scan whose row was not kept could not be read at all."""
    warehouse = Store(str(tmp_path / "w"))
    labels = tumour((3, 4))
    file = dict.fromkeys(FILE.names) | {
        "role": "flair",
        "shape": list(labels.T.shape),
        "affine": np.eye(4).ravel().tolist(),
        "orientation": "RAS",
        "container": "nifti1",
        "header": bytes(nib.Nifti1Header().binaryblock),
        "extensions": b"",
        "slope": 1.0,
        "inter": 0.0,
    }
    transform = {"role": "flair", "matrix": np.eye(4).ravel().tolist(), "itk": "", "metric": None, "moved_mm": 0.0}
    found = {"how": "prepared", "reference": "flair", "transforms": [transform], "checks": [], "versions": []}
    row = scan_row("p", shape=list(labels.shape), files=[file], preparation=found, modalities=["flair"])
    row["affine"] = np.eye(4)[[2, 1, 0, 3]].ravel().tolist()
    with lock(warehouse.url, "predictions-c", 5, "r1") as fence:
        write(warehouse, fence, "p", "1", labels)
        ways.keep(warehouse, fence.run_id, row)
        reading = IngestSettings(source=str(tmp_path / "gone"), warehouse=warehouse.url, cohort="c", prepare=True)
        reader = IngestJob(reading, SplitRule("s", 0.7, 0.15), fence)
        job = ArchivedJob(warehouse.url, "c", MODEL, ("flair",), "SPL", "brats", fence, reader=reader)
        place = predicted_places(warehouse, "c", MODEL)["c:p:1"]
        source = ScanSource("p", "1", (SourceFile("flair", "p_flair.nii.gz", 1, ""),), "brats")
        scan = masks.MaskScan(place, source)
        with Watch(warehouse, fence.run_id) as watch:
            (outcome,) = masks.write_group([scan], job, {"nifti": str(tmp_path / "out")}, watch)
        assert (outcome.problems, outcome.written) == ((), 1)
        (path,) = (tmp_path / "out").rglob("*_flair.nii.gz")
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), labels.transpose(2, 1, 0))
        assert ways.kept(warehouse, fence.run_id, "c:another:1") is None
        assert ways.kept(warehouse, "another run", "c:p:1") is None
