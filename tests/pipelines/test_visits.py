"""Two visits of a patient, from files on grids of their own to the table `changes`, through every step."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pyspark.sql import SparkSession

import segpipe
from segpipe.prepare import atlas
from segpipe.runtimes.export import export
from tests.pipelines.cohorts import COHORT, Cohort
from tests.pipelines.visits import VISITS, write_visit
from tests.runtimes.models import tiny_bundle

LESIONS = {
    "1": {(30, 10, 25): 10, (-35, -20, 20): 8},
    "2": {(30, 10, 25): 13, (-30, 25, 15): 9},
}
"""By visit, radius by centre, mm in the atlas: one grows, one goes, one is new."""


def write_head(folder: Path, session: str) -> None:
    """The brain of the atlas at a visit, with bright lesions."""
    head = atlas.head()
    values = np.where(head.brain, 400 + head.values, 0)
    points = np.indices(values.shape, np.float32) + head.grid.affine[:3, 3].astype(np.float32)[:, None, None, None]
    for centre, radius in LESIONS[session].items():
        distance = np.square(points - np.array(centre, np.float32)[:, None, None, None]).sum(axis=0)
        values[distance <= radius**2] = 1600
    write_visit(folder, session, "FLAIR", values)


def ball_ml(radius: float) -> float:
    return 4 / 3 * math.pi * radius**3 / 1000


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)  # two scans are prepared, one of them twice
def test_what_became_of_each_lesion_stands_in_the_tables(spark: SparkSession, tmp_path: Path) -> None:
    for session in VISITS:
        write_head(tmp_path / "archive", session)
    url = str(tmp_path / "m")
    model = export(tiny_bundle(url, modalities=("FLAIR",), crop=(160, 192), levels=(6, 7, 8), normalisation="none").url)
    cohort = Cohort(spark, tmp_path / "archive", str(tmp_path / "w"))
    outcome, run = cohort.segment(model.url, source=str(cohort.archive), prepare=True, nifti=str(tmp_path / "masks"))
    assert (len(outcome.segmented), run.counts["changes"], run.counts["mask_files_written"]) == (2, 3, 2)
    (row,) = (
        segpipe.open_warehouse(cohort.url)
        .sql(f"select * from changes where cohort = '{COHORT}' and region = 'whole_tumour'")
        .df()
        .to_dict("records")
    )
    assert (row["session"], row["previous_session"], row["baseline_session"]) == ("ses-2", "ses-1", "ses-1")
    assert [row[f"{fate}_lesions"] for fate in ("grown", "gone", "new", "shrunk")] == [1, 1, 1, 0]
    assert row["brains_dice"] > 0.95
    assert {*row["flags"]} <= {"brain_volume_ml"}  # the atlas is larger than most brains
    before, now = ([ball_ml(radius) for radius in LESIONS[session].values()] for session in VISITS)
    assert row["previous_volume_ml"] == pytest.approx(sum(before), rel=0.2)
    assert row["volume_ml"] == pytest.approx(sum(now), rel=0.2)
    assert row["change_from_baseline"] == pytest.approx((13 / 10) ** 2 - 1, abs=0.12)
    assert row["change_from_baseline"] == row["change_from_nadir"] > row["increase_threshold"] == 0.25
    fates = {lesion["fate"]: lesion for lesion in row["lesions"]}
    assert fates["grown"]["volume_ml"] / fates["grown"]["volume_before_ml"] == pytest.approx(1.3**3, rel=0.15)
    for fate, centre in (("grown", (30, 10, 25)), ("gone", (-35, -20, 20)), ("new", (-30, 25, 15))):
        np.testing.assert_allclose(fates[fate]["centroid_mm"], centre, atol=3)  # the space shows the atlas's own brain
    for session in VISITS:
        (path,) = (tmp_path / "masks").rglob(f"ses-{session}/*_FLAIR.nii.gz")
        mask = nib.load(path)
        found = np.count_nonzero(mask.dataobj) * abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        assert found == pytest.approx(row["volume_ml" if session == "2" else "previous_volume_ml"], rel=0.02)
