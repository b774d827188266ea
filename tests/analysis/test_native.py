"""A prepared scan beside the file that it was prepared from."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import segpipe
from segpipe.analysis.scan import Scan
from segpipe.errors import NotFound, UsageError
from segpipe.storage.lock import lock
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import FILE
from tests.pipelines.test_follow_up import SHAPE, tumour, write

pytestmark = pytest.mark.process  # a lock asks the machine for its name

SPACE = np.array([[0, 0, -1.0, 12], [0, -1.0, 0, 12], [1.0, 0, 0, -6], [0, 0, 0, 1]])
NATIVE = np.diag([-1.0, -1.0, 2.0, 1.0])
NATIVE[:3, 3] = [20, 12, -2]
MOVED = nib.affines.from_matvec(np.eye(3), [8.0, 0, 4])
"""Points of the space to points of the file."""


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    warehouse = Store(str(tmp_path / "w"))
    files, transforms = [], []
    for role in ("flair", "t1"):
        files.append(dict.fromkeys(FILE.names) | {"role": role, "slope": 1.0, "inter": 0.0, "orientation": "LPS"})
        files[-1] |= {"shape": [24, 24, 6], "affine": NATIVE.ravel().tolist()}
        transforms.append({"role": role, "matrix": MOVED.ravel().tolist(), "itk": "", "metric": None, "moved_mm": 0.0})
    found = {"how": "prepared", "reference": "t1", "transforms": transforms, "checks": [], "versions": []}
    affine = SPACE.ravel().tolist()
    with lock(warehouse.url, "predictions-c", 5, "r1") as fence:
        write(warehouse, fence, "p", "1", tumour((3, 4)), files=files, preparation=found, affine=affine)
        write(warehouse, fence, "q", "1", tumour((3, 4)))
    return segpipe.open_warehouse(warehouse.url).scan("p")


def test_labels_lie_where_the_file_has_them(scan: Scan) -> None:
    native = scan.nifti("prediction", native="T1")
    assert native.shape == (24, 24, 6)
    np.testing.assert_array_equal(native.affine, NATIVE)
    middles = []
    for labels, affine in ((np.asarray(native.dataobj), native.affine), (scan.prediction(), MOVED @ scan.affine)):
        middles.append(affine @ [*np.argwhere(labels).mean(axis=0), 1])
        assert (labels > 0).sum() * abs(np.linalg.det(affine)) == pytest.approx(64)
    np.testing.assert_allclose(middles[0], middles[1], atol=0.51)
    assert scan.nifti("prediction").shape == SHAPE[::-1]
    with pytest.raises(NotFound, match="images are in the source file"):
        scan.nifti("t1", native="t1")


def test_the_source_file_is_shown_beside_the_prepared_scan(scan: Scan, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.normal(size=(24, 24, 6)).astype(np.float32), NATIVE), tmp_path / "t1.nii")
    figure = scan.view("t1", native=str(tmp_path / "t1.nii"))
    assert [axis.get_title() for axis in figure.axes] == ["prepared: 12 x 24 x 24", "as scanned: 24 x 24 x 6"]
    assert all(axis.collections for axis in figure.axes)  # the prediction's outline on each
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), NATIVE), tmp_path / "other.nii")
    with pytest.raises(UsageError, match="was ingested from"):
        scan.view("t1", native=str(tmp_path / "other.nii"))
    with pytest.raises(NotFound, match="was not prepared"):
        scan.warehouse.scan("q").view(native=str(tmp_path / "t1.nii"))
