"""A DICOM study whose series lie on grids of their own: prepared, segmented, and its masks on every series' grid.

The head is the atlas's own brain, turned and shifted, so that no brain network and no real scan is needed.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pyspark.sql import SparkSession

from segpipe.core.orientation import reorient
from segpipe.prepare import atlas
from segpipe.prepare.grids import LPS, Grid, resample
from segpipe.readers.naming import KEY_VARIABLE
from segpipe.runtimes.export import export
from tests.mr_image import axes_of, mr_image, write
from tests.pipelines.cohorts import Cohort
from tests.runtimes.models import tiny_bundle

TURN = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, -0.05, 0.12), [4.0, -6.0, 9.0])
"""Points of the patient to points of the atlas."""
SERIES = {"FLAIR": (200, 190, 48, (1.0, 1.2, 4.0)), "T1": (170, 200, 62, (1.2, 1.0, 3.0))}
"""Columns, rows, slices, and mm along them."""


def head(role: str, grid: Grid) -> np.ndarray:
    """What a series shows of the brain: the T1 as it is, the FLAIR with another contrast and a bright lesion."""
    brain = atlas.head()
    values = brain.values.copy()
    if role == "FLAIR":
        values[brain.brain] = 40 + 700 / np.sqrt(values[brain.brain].clip(20))
        places = np.indices(values.shape, np.float32) - np.array([130, 130, 100], np.float32)[:, None, None, None]
        values[(np.square(places).sum(axis=0) < 15**2) & brain.brain] = 400
    return resample(values, brain.grid, grid, TURN).clip(0).round().astype(np.int16)


def grid_of(role: str) -> Grid:
    """The middle of the head in the middle of an axial stack that starts at the right, in front, below."""
    columns, rows, slices, (dx, dy, dz) = SERIES[role]
    affine = np.diag([-dx, -dy, dz, 1.0])
    centre = np.linalg.inv(TURN) @ [0, -18, 10, 1]
    affine[:3, 3] = centre[:3] - affine[:3, :3] @ (np.array([columns, rows, slices]) - 1) / 2
    return Grid((columns, rows, slices), affine)


def write_study(folder: Path) -> None:
    folder.mkdir()
    for number, role in enumerate(SERIES):
        grid = grid_of(role)
        voxels, lps = head(role, grid), LPS @ grid.affine
        step = grid.spacing_mm
        for index in range(grid.shape[2]):
            image = mr_image(
                *("1.2.3.4", number, index + 1, role, voxels[:, :, index].T),
                ImagePositionPatient=[round(float(v), 6) for v in (lps @ [0, 0, index, 1])[:3]],
                ImageOrientationPatient=axes_of(lps[:3, 0] / step[0], lps[:3, 1] / step[1]),
                PixelSpacing=[step[1], step[0]],
                SliceThickness=step[2],
            )
            write(image, folder / f"IM{number}_{index:03d}")


def _share(labels: np.ndarray, places: np.ndarray) -> float:
    """The share of places, indices (3, n), at which there is a label."""
    at = np.rint(places).astype(int).clip(0, np.array(labels.shape)[:, None] - 1)
    return float((labels[tuple(at)] > 0).mean())


@pytest.mark.slow
@pytest.mark.timeout(600)  # a scan is prepared
def test_masks_of_a_prepared_study_lie_on_every_series(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen bytes")
    write_study(tmp_path / "archive")
    model = export(tiny_bundle(str(tmp_path / "m"), modalities=("FLAIR", "T1"), crop=(64, 64), bias=-3.0).url)
    cohort = Cohort(spark, tmp_path / "archive", str(tmp_path / "w"))
    outcome, run = cohort.segment(
        model.url,
        source=str(cohort.archive),
        prepare=True,
        nifti=str(tmp_path / "nifti"),
        dicom_seg=str(tmp_path / "seg"),
    )
    assert (len(outcome.segmented), run.counts["mask_files_written"], run.lines) == (1, 4, [])
    measured = {row["region"]: row["volume_ml"] for row in cohort.rows("segmentations", "region")}
    regions = {region: list(labels) for region, labels in model.regions.items() if measured[region] > 1}
    assert len(regions) >= 2
    planes = [np.frombuffer(row["mask"], np.uint8) for row in cohort.rows("predictions", "slice_index")]
    predicted = reorient(np.stack(planes).reshape(atlas.grid().shape[::-1]), "SPL", "RAS")
    for role in SERIES:
        grid = grid_of(role)
        (path,) = (tmp_path / "nifti").rglob(f"*_{role}.nii.gz")
        mask = nib.load(path)
        assert sorted(mask.shape) == sorted(grid.shape)
        labels = np.asarray(mask.dataobj)
        for region, members in regions.items():
            assert np.isin(labels, members).sum() * grid.voxel_ml == pytest.approx(measured[region], rel=0.02)
        (path,) = (tmp_path / "seg").rglob(f"*_{role}.dcm")
        seg = pydicom.dcmread(path)
        assert (seg.Rows, seg.Columns, seg.PatientID) == (grid.shape[1], grid.shape[0], "P1")
        assert int(seg.pixel_array.sum()) == np.count_nonzero(labels)
        referred = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert referred.ReferencedSOPInstanceUID.startswith(f"1.2.3.4.{list(SERIES).index(role)}.")
        there = np.linalg.inv(atlas.grid().affine) @ TURN @ mask.affine  # the space shows the head as the atlas has it
        places = (there @ np.vstack([np.array(np.nonzero(labels)), np.ones(np.count_nonzero(labels))]))[:3]
        found, beside = (_share(predicted, places + np.array([[shift], [0], [0]])) for shift in (0, 4))
        assert found > 0.5  # the labels of an untrained network are noise, that of thick voxels cannot all agree
        assert found > 2 * beside
    assert not [path for path in (tmp_path / "w" / "_staging").rglob("*") if path.is_file()]
