"""What cannot be prepared is refused with its figures; what is prepared already is recognised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.orientation import axis_codes, reorient, reorient_affine
from segpipe.errors import BadInput, Reason
from segpipe.prepare import raw
from segpipe.prepare.raw import Raw, host
from segpipe.prepare.scan import recognised


def _raw(shape=(20, 64, 64), spacing=(6.0, 3.0, 3.0), shear=0.0, frames=1, **changes) -> Raw:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1
    affine[1, 0] = shear * spacing[0]
    return Raw("T1", "t1.nii.gz", changes.get("voxels", np.zeros(shape, np.int16)), affine, "SPL", frames=frames)


def test_a_usual_series_is_not_refused():
    raw.refuse(_raw())
    raw.refuse(_raw((39, 320, 320), (3.0, 0.72, 0.72)))  # 117 mm across the slices


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (_raw((9, 64, 64)), "9 slices"),
        (_raw((40, 40, 40), (3.0, 2.5, 2.5)), "100"),
        (_raw(shear=0.05), "2.9 degrees"),
        (_raw(frames=7), "7 frames"),
    ],
    ids=["few slices", "small field of view", "sheared", "4D"],
)
def test_what_cannot_be_prepared_is_told_with_its_figure(bad, told):
    with pytest.raises(BadInput, match=told) as caught:
        raw.refuse(bad)
    assert caught.value.reason is Reason.UNPREPARABLE


def _ball(radius_mm: float = 65.0, shape=(155, 180, 180)) -> np.ndarray:
    grid = np.indices(shape, np.float32)
    middle = (np.array(shape, np.float32) - 1) / 2
    return ((grid - middle[:, None, None, None]) ** 2).sum(axis=0) < radius_mm**2


def _stripped(role: str, ball: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> Raw:
    one = _raw(spacing=spacing, voxels=np.where(ball, 100, 0).astype(np.int16))
    return Raw(role, role, one.voxels, one.affine, "SPL")


def test_brains_alone_on_one_grid_are_recognised():
    ball = _ball()
    found = recognised([_stripped("FLAIR", ball), _stripped("T1", ball)])
    assert found is not None
    assert found.record["how"] == "recognised"
    assert found.flags == []


def test_brains_alone_on_other_grids_or_in_other_places_are_not():
    ball = _ball()
    shifted = _stripped("T1", np.roll(ball, 12, axis=2))
    assert recognised([_stripped("FLAIR", ball), shifted]) is None
    assert recognised([_stripped("FLAIR", ball), _stripped("T1", ball, (1.2, 1.0, 1.0))]) is None


def test_a_brain_that_is_left_alone_is_checked_all_the_same():
    """The crown of one is cut off, and another is as small as a child's."""
    ball = _ball()
    cut = ball[: 155 // 2 + 46]
    found = recognised([_stripped("FLAIR", cut), _stripped("T1", cut)])
    assert found is not None
    assert found.flags == ["brain_at_edge:T1"]
    small = _ball(54)
    found = recognised([_stripped("FLAIR", small), _stripped("T1", small)])
    assert found is not None
    assert found.flags == ["brain_volume_ml", "size_of_atlas"]
    assert {one["name"] for one in found.record["checks"]} >= {"brain_volume_ml", "size_of_atlas", "masks_agree"}


def test_a_whole_head_is_not_a_brain_alone():
    head = _ball(85, (170, 200, 200))  # 2.6 litres
    assert raw.stripped_brain(_stripped("T1", head)) is None
    noise = np.random.default_rng(0).integers(0, 9, (155, 180, 180)).astype(np.int16)
    assert raw.stripped_brain(_raw(spacing=(1.0, 1.0, 1.0), voxels=noise)) is None


def test_a_head_whose_skull_is_as_dark_as_the_air_is_not_a_brain_alone():
    scalp = _ball(84, (190, 190, 190)) & ~_ball(80, (190, 190, 190))
    head = _ball(65, (190, 190, 190)) | scalp
    assert 500 < head.sum() / 1000 < 2200
    assert raw.stripped_brain(_stripped("T1", head)) is None


def test_a_brain_alone_may_have_nothing_around_it():
    brain = _stripped("T1", _ball())
    nothing = replace(brain, voxels=np.where(brain.voxels == 0, np.nan, brain.voxels).astype(np.float32))
    found = raw.stripped_brain(nothing)
    assert found is not None
    assert found.sum() == _ball().sum()


def _read(path: Path, role: str) -> Raw:
    import nibabel as nib

    image = nib.load(path)
    codes = axis_codes(image.affine)
    affine = reorient_affine(image.affine, image.shape, codes, "SPL")
    return Raw(role, path.name, reorient(np.asarray(image.dataobj), codes, "SPL"), affine, "SPL")


@pytest.mark.real
def test_the_glioma_scans_of_the_challenge_are_recognised_all_sixteen_without_a_doubt(real_data):
    folders = sorted(
        path for name in ("brats2021", "brats_tcga") for path in (real_data / name).iterdir() if path.is_dir()
    )
    found = {
        folder.name: recognised([_read(folder / f"{folder.name}_{role}.nii.gz", role) for role in ("t1ce", "flair")])
        for folder in folders
    }
    assert len(found) == 16
    assert [name for name, one in found.items() if one is None] == []
    assert {name: one.flags for name, one in found.items() if one is not None and one.flags} == {}


@pytest.mark.real
def test_raw_scans_are_not_recognised(real_data):
    path = real_data / "open_ms" / "long_patient01" / "study1_FLAIR.nii.gz"
    assert raw.stripped_brain(_read(path, "FLAIR")) is None


class TestHost:
    """Which modality's transform a mask gets."""

    def of(self, role: str, shift_mm: float = 0.0, slices: slice = slice(None), **changes) -> Raw:
        one = _raw()
        affine = one.affine.copy()
        affine[:3, 3] = (one.affine @ [slices.start or 0, 0, 0, 1])[:3] + np.array([shift_mm, 0, 0])
        return replace(one, role=role, voxels=one.voxels[slices], affine=affine, **changes)

    def test_a_mask_with_empty_slices_left_out_goes_with_the_grid_that_it_is_part_of(self):
        t1ce, flair = self.of("T1ce", 1.5), self.of("FLAIR")
        assert host(self.of("mask"), [t1ce, flair]) is flair
        assert host(self.of("mask", slices=slice(5, 15)), [t1ce, flair]) is flair
        assert host(self.of("mask", 1.5, slice(5, 15)), [t1ce, flair]) is t1ce
        assert host(self.of("mask", 0.7, slice(5, 15)), [t1ce, flair]) is None

    def test_the_whole_grid_is_preferred_to_a_part_of_one(self):
        part, whole = self.of("T2", slices=slice(5, 18)), self.of("FLAIR")
        assert host(self.of("mask", slices=slice(5, 18)), [whole, part]) is part
        assert host(self.of("mask"), [part, whole]) is whole

    def test_the_series_that_a_mask_refers_to_decides(self):
        t1ce, flair = self.of("T1ce"), self.of("FLAIR")
        assert host(self.of("mask", slices=slice(5, 15), drawn_on="FLAIR"), [t1ce, flair]) is flair
        assert host(self.of("mask", drawn_on="T1ce"), [flair, t1ce]) is t1ce
        assert host(self.of("mask", drawn_on="T2"), [t1ce, flair]) is t1ce
