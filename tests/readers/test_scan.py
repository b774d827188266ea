"""Scans: one grid, canonical orientation, checked masks, typed refusals."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.orientation import reorient, reorient_affine, same_grid
from segpipe.errors import BadInput, Reason
from segpipe.readers import nifti
from segpipe.readers import scan as scans
from segpipe.readers.scan import Arranged, Frame, LoadedScan, load, restore
from segpipe.readers.sources import find
from tests.readers.conftest import LPS, head, save


def only(folder: Path, **options: object) -> LoadedScan:
    """The one scan of an archive."""
    listing = find(str(folder))
    assert not listing.rejected
    (source,) = listing.scans
    return load(listing.root, source, **options)  # type: ignore[arg-type]


def dropped(scan: LoadedScan) -> dict[str, Reason]:
    """What was left out of a scan, and why."""
    return {path: row.reason for row in scan.dropped for path in row.paths}


def refused(folder: Path, **options: object) -> BadInput:
    with pytest.raises(BadInput) as caught:
        only(folder, **options)
    return caught.value


def test_a_case_is_loaded_in_canonical_order(brats_case: Callable[..., Path]) -> None:
    scan = only(brats_case())
    assert scan.modalities == ("FLAIR", "T1", "T1ce", "T2")
    assert scan.orientation == "SPL"
    assert scan.shape == (4, 5, 6)
    np.testing.assert_array_equal(scan.images["T1"], head(seed=1).T)
    np.testing.assert_array_equal(scan.affine, LPS[:, [2, 1, 0, 3]])
    assert scan.label_counts == {1: 1, 4: 1}
    assert scan.label_convention == "brats"
    assert scan.brain_box == (1, 3, 1, 4, 1, 5)
    assert scan.brain_voxels == 2 * 3 * 4
    assert scan.brain_pixels.tolist() == [0, 12, 12, 0]
    assert scan.foreground_pixels.tolist() == [0, 1, 1, 0]
    assert [row["role"] for row in scan.file_rows] == ["FLAIR", "T1", "T1ce", "T2", "mask"]
    values = head(seed=3)[1:5, 1:4, 1:3]
    assert scan.statistics["T2"].mean == pytest.approx(values.mean())
    assert scan.statistics["T2"].max == values.max()


@pytest.mark.parametrize(("axis", "shape"), [("axial", (4, 5, 6)), ("coronal", (5, 4, 6)), ("sagittal", (6, 4, 5))])
def test_slices_run_along_the_axis(brats_case: Callable[..., Path], axis: str, shape: tuple[int, ...]) -> None:
    assert only(brats_case(), axis=axis).shape == shape


def test_one_brain_in_two_orientations_is_one_grid(tmp_path: Path) -> None:
    save(tmp_path / "p" / "p_T1.nii", head())
    turned = reorient(head(seed=1), "LPS", "SAR")
    save(tmp_path / "p" / "p_T2.nii", turned, reorient_affine(LPS, (6, 5, 4), "LPS", "SAR"))
    scan = only(tmp_path)
    np.testing.assert_array_equal(scan.images["T2"], head(seed=1).T)
    assert [row["orientation"] for row in scan.file_rows] == ["LPS", "SAR"]


def test_statistics_and_slopes_are_of_scaled_values(tmp_path: Path) -> None:
    save(tmp_path / "p_T1.nii", head(), slope=-2.0, inter=5.0)
    scan = only(tmp_path)
    assert scan.slopes == {"T1": (-2.0, 5.0)}
    assert scan.images["T1"].dtype == np.int16
    stored = head()[1:5, 1:4, 1:3]
    assert scan.statistics["T1"].min == 5 - 2 * stored.max()


def test_frames_become_modalities_and_one_file_again(tmp_path: Path) -> None:
    voxels = np.stack([head(seed=seed) for seed in range(6)], axis=-1).reshape(6, 5, 4, 2, 3)
    path = save(tmp_path / "p_bold.nii.gz", voxels)
    scan = only(tmp_path)
    assert scan.modalities == tuple(f"bold.{n:03d}" for n in range(6))
    np.testing.assert_array_equal(scan.images["bold.003"], voxels[..., 1, 1].T)
    assert [bool(row["header"]) for row in scan.file_rows] == [True] + [False] * 5
    volume = restore(scan.file_rows, list(scan.images.values()), scan.orientation)
    assert nifti.to_bytes(volume) == nifti.to_bytes(nifti.read(path))


def test_frames_of_one_file_are_not_compared_in_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six hundred frames took half a minute, and the thousand of a functional series more than one."""
    compared: list[object] = []
    monkeypatch.setattr(scans, "same_grid", lambda *affines: compared.append(affines) or same_grid(*affines))
    save(tmp_path / "p_bold.nii.gz", np.repeat(head()[..., None], 600, axis=3))
    assert len(only(tmp_path).modalities) == 600
    assert 0 < len(compared) <= 2 * 600


@pytest.mark.parametrize("axis", ["axial", "sagittal"])
def test_every_real_file_is_restored_from_its_scan(real_data: Path, axis: str) -> None:
    """The way through the tables: canonical little-endian planes and file rows, back to the bytes of the source."""
    listing = find(str(real_data / "odd"))
    restored = 0
    for source in listing.scans:
        try:
            scan = load(listing.root, source, axis=axis, keep_header_text=True)
        except BadInput:
            continue
        if scan.file_rows[0]["container"] == "dicom":
            continue
        planes = [image.astype(image.dtype.newbyteorder("<")) for image in scan.images.values()]
        volume = restore(scan.file_rows, planes, scan.orientation)
        original = nifti.read(real_data / "odd" / source.paths[0])
        assert nifti.to_bytes(volume) == nifti.to_bytes(original), source.paths
        assert nifti.image_bytes(volume) == nifti.image_bytes(original), source.paths
        restored += 1
    assert restored > 20


def test_restoring_refuses_planes_of_another_size(brats_case: Callable[..., Path]) -> None:
    scan = only(brats_case())
    with pytest.raises(ValueError, match="do not make up"):
        restore(scan.file_rows[:1], [np.zeros((9, 9, 9), np.int16)], scan.orientation)


class TestGrids:
    """Modalities on grids of their own."""

    @pytest.fixture
    def mixed(self, tmp_path: Path) -> Path:
        """A ramp along x in 1 mm voxels, the same ramp in 2 mm voxels with a slope, and a mask in 1 mm voxels."""
        ramp = np.broadcast_to(np.arange(1, 13, dtype=np.int16)[:, None, None], (12, 8, 8)).copy()
        save(tmp_path / "p_FLAIR.nii", ramp, np.eye(4))
        save(tmp_path / "p_T1.nii", ramp[::2, ::2, ::2], np.diag([2.0, 2, 2, 1]), slope=10.0)
        mask = np.zeros((12, 8, 8), np.uint8)
        mask[4:8, 2:6, 2:6] = 1
        save(tmp_path / "p_seg.nii", mask, np.eye(4))
        return tmp_path

    def test_they_are_refused(self, mixed: Path) -> None:
        error = refused(mixed)
        assert error.reason == Reason.GRID_MISMATCH
        assert "--resample-to" in error.remedy

    def test_they_are_resampled_linearly(self, mixed: Path) -> None:
        scan = only(mixed, resample_to="FLAIR")
        assert scan.resampled_to == "FLAIR"
        assert scan.images["FLAIR"].dtype == np.int16
        t1 = scan.images["T1"]
        assert t1.dtype == np.float32
        inside = t1[:7, 1:, 1:]  # axes S, P, L; all but the voxels outside of the coarse grid
        wanted = np.broadcast_to(np.arange(11, 0, -1, dtype=np.float32), inside.shape)
        np.testing.assert_allclose(inside, wanted, rtol=1e-5)
        assert scan.file_rows[1]["shape"] == [6, 4, 4]
        assert scan.file_rows[1]["dtype"] == "<i2"
        assert scan.slopes["T1"] == (10.0, 0.0)

    def test_masks_are_resampled_to_the_nearest_label(self, mixed: Path) -> None:
        scan = only(mixed, resample_to="T1")
        assert scan.shape == (4, 4, 6)
        assert scan.label_counts == {1: 2 * 2 * 2}
        assert scan.mask is not None
        assert scan.mask.dtype == np.uint8

    def test_the_modality_must_be_there(self, mixed: Path) -> None:
        assert refused(mixed, resample_to="T2").reason == Reason.MISSING_MODALITY

    def test_nothing_is_resampled_on_one_grid(self, brats_case: Callable[..., Path]) -> None:
        scan = only(brats_case(), resample_to="T1")
        assert scan.resampled_to is None
        assert scan.images["FLAIR"].dtype == np.int16

    def test_affines_that_differ_by_nothing_are_one_grid(self, tmp_path: Path) -> None:
        other = LPS.copy()
        other[0, 3] = -0.0
        other[1, 3] = 5e-4
        save(tmp_path / "p_T1.nii", head(), LPS)
        save(tmp_path / "p_T2.nii", head(), other)
        assert only(tmp_path).modalities == ("T1", "T2")

    def test_a_mask_on_another_grid_drops_out_alone(self, brats_case: Callable[..., Path]) -> None:
        scan = only(brats_case(labels=np.ones((6, 5, 3), np.uint8)))
        assert scan.modalities == ("FLAIR", "T1", "T1ce", "T2")
        assert (scan.mask, scan.label_counts, scan.label_convention) == (None, None, None)
        assert dropped(scan) == {"BraTS2021_00001/BraTS2021_00001_seg.nii.gz": Reason.MASK_MISMATCH}

    def test_what_fits_no_other_drops_out_alone(self, brats_case: Callable[..., Path]) -> None:
        archive = brats_case()
        case = archive / "BraTS2021_00001"
        save(case / "BraTS2021_00001_t1.nii.gz", head((6, 5, 3)))
        save(case / "BraTS2021_00001_adc.nii.gz", head((6, 5, 3)))
        save(case / "BraTS2021_00001_swi.nii.gz", head(seed=5))
        scan = only(archive)
        assert scan.modalities == ("FLAIR", "T1ce", "T2", "SWI")
        assert [row["role"] for row in scan.file_rows] == ["FLAIR", "T1ce", "T2", "SWI", "mask"]
        wanted = {f"BraTS2021_00001/BraTS2021_00001_{word}.nii.gz": Reason.GRID_MISMATCH for word in ("adc", "t1")}
        assert dropped(scan) == wanted

    @pytest.mark.parametrize("fits", [True, False])
    def test_an_image_of_another_copy_is_used_on_the_same_grid(self, tmp_path: Path, fits: bool) -> None:
        affine = LPS if fits else LPS @ np.diag([2.0, 1, 1, 1])
        for place, seed in (("p/p_T2.nii", 0), ("p/processed/p_T2.nii", 1)):
            save(tmp_path / place, head(seed=seed))
        save(tmp_path / "p" / "p_T1.nii", head(seed=2), affine)
        save(tmp_path / "p" / "processed" / "p_mask.nii", (head() > 0).astype(np.uint8))
        listing = find(str(tmp_path))
        (source,) = listing.scans
        assert [one.paths for one in listing.rejected] == [("p/p_T2.nii",)]
        for resample_to in (None, "T2"):
            scan = load(listing.root, source, resample_to=resample_to)
            assert scan.modalities == (("T1", "T2") if fits else ("T2",))
            assert scan.mask is not None
            assert dropped(scan) == ({} if fits else {"p/p_T1.nii": Reason.GRID_MISMATCH})
        if not fits:
            with pytest.raises(BadInput, match="another copy"):
                load(listing.root, source, needed={"T1"})

    def test_real_native_grids(self, real_data: Path) -> None:
        listing = find(str(real_data / "open_ms"))
        source = next(source for source in listing.scans if source.session == "study1")
        with pytest.raises(BadInput) as caught:
            load(listing.root, source)
        assert caught.value.reason == Reason.GRID_MISMATCH
        scan = load(listing.root, source, resample_to="FLAIR")
        assert scan.shape == (36, 320, 320)
        stack = [image[scan.brain].astype(float) for image in scan.images.values()]
        assert np.corrcoef(stack)[0, 2] > 0.2  # FLAIR and T2 of one head lie on each other


class TestLabels:
    """Masks and their conventions."""

    @pytest.mark.parametrize(
        ("labels", "convention"), [((0, 1), "binary"), ((0, 0), "binary"), ((1, 4), "brats"), ((2, 4), "brats")]
    )
    def test_labels_tell_the_convention_of_a_plain_mask(
        self, tmp_path: Path, labels: tuple[int, int], convention: str
    ) -> None:
        mask = np.zeros((6, 5, 4), np.float32)
        mask[2, 2, 1:3] = labels
        save(tmp_path / "p_T1.nii")
        save(tmp_path / "p_mask.nii", mask)
        scan = only(tmp_path)
        assert scan.label_convention == convention
        assert scan.mask is not None
        assert scan.mask.dtype == np.float32

    @pytest.mark.parametrize("value", [3, 7, 255, -1, 0.5, np.nan, np.inf])
    def test_unknown_labels_drop_the_mask_alone(self, brats_case: Callable[..., Path], value: float) -> None:
        mask = np.zeros((6, 5, 4), np.float64)
        mask[2, 2, 2] = value
        scan = only(brats_case(labels=mask))
        assert len(scan.modalities) == 4
        assert scan.mask is None
        assert list(dropped(scan).values()) == [Reason.UNKNOWN_LABELS]

    def test_ambiguous_labels_of_a_plain_mask_are_refused(self, tmp_path: Path) -> None:
        mask = np.zeros((6, 5, 4), np.uint8)
        mask[2, 2, 1:3] = (1, 3)
        save(tmp_path / "p_T1.nii")
        save(tmp_path / "p_mask.nii", mask)
        (row,) = only(tmp_path).dropped
        assert row.reason == Reason.UNKNOWN_LABELS
        assert "--label-convention" in row.remedy
        assert "manifest" in row.remedy

    def test_a_scaled_mask_is_refused(self, tmp_path: Path) -> None:
        save(tmp_path / "p_T1.nii")
        save(tmp_path / "p_mask.nii", np.ones((6, 5, 4), np.uint8), slope=0.5)
        assert dropped(only(tmp_path)) == {"p_mask.nii": Reason.UNKNOWN_LABELS}

    def test_an_image_of_two_numbers_is_asked_about(self, tmp_path: Path) -> None:
        mask = np.zeros((6, 5, 4), np.uint8)
        mask[2, 2, 1:3] = 1
        save(tmp_path / "p7" / "p7_T1.nii")
        save(tmp_path / "p7" / "p7_x.nii", mask)
        scan = only(tmp_path)
        assert scan.modalities == ("T1",)
        assert dropped(scan) == {"p7/p7_x.nii": Reason.UNCLEAR_ROLE}
        save(tmp_path / "p8" / "volume.nii", mask)
        listing = find(str(tmp_path))
        with pytest.raises(BadInput) as caught:
            load(listing.root, next(scan for scan in listing.scans if scan.subject == "p8"))
        assert caught.value.reason == Reason.UNCLEAR_ROLE

    def test_a_mask_of_several_frames_is_refused(self, tmp_path: Path) -> None:
        save(tmp_path / "p_T1.nii")
        save(tmp_path / "p_mask.nii", np.ones((6, 5, 4, 2), np.uint8))
        assert refused(tmp_path).reason == Reason.MASK_MISMATCH


class TestContent:
    """Volumes that parse but cannot be used."""

    def test_single_voxels_that_are_not_finite_are_fine(self, tmp_path: Path) -> None:
        voxels = head().astype(np.float32)
        voxels[2, 2, 2], voxels[3, 2, 2] = np.nan, np.inf
        save(tmp_path / "p_T1.nii", voxels)
        scan = only(tmp_path)
        assert np.isnan(scan.images["T1"][2, 2, 2])
        assert scan.statistics["T1"].voxels == 22
        assert np.isfinite(scan.statistics["T1"].max)

    def test_no_finite_voxel(self, tmp_path: Path) -> None:
        save(tmp_path / "p_T1.nii", np.full((6, 5, 4), np.nan, np.float32))
        assert refused(tmp_path).reason == Reason.NOT_FINITE

    def test_one_value_everywhere(self, tmp_path: Path) -> None:
        save(tmp_path / "p_T1.nii", np.full((6, 5, 4), 7, np.int16))
        assert refused(tmp_path).reason == Reason.NO_BRAIN

    @pytest.mark.parametrize("number", [np.nan, np.inf, 0.0])
    def test_affine_without_a_direction(self, tmp_path: Path, number: float) -> None:
        volume = nifti.from_array(head(), LPS)
        header = bytearray(volume.header)
        header[280:296] = np.array([number] * 4, "<f4").tobytes()
        (tmp_path / "p_T1.nii").write_bytes(bytes(header) + bytes(4) + head().tobytes("F"))
        assert refused(tmp_path).reason == Reason.BAD_GEOMETRY

    def test_affine_that_is_flat(self, tmp_path: Path) -> None:
        volume = nifti.from_array(head(), LPS)
        header = bytearray(volume.header)
        header[296:312] = header[280:296]
        (tmp_path / "p_T1.nii").write_bytes(bytes(header) + bytes(4) + head().tobytes("F"))
        assert refused(tmp_path).reason == Reason.BAD_GEOMETRY

    def test_too_many_voxels(self, brats_case: Callable[..., Path]) -> None:
        assert refused(brats_case(), max_voxels=100).reason == Reason.TOO_LARGE

    def test_a_damaged_file_drops_out_alone(self, brats_case: Callable[..., Path]) -> None:
        archive = brats_case()
        bad = next(archive.rglob("*_t1ce.nii.gz"))
        bad.write_bytes(b"")
        scan = only(archive)
        assert scan.modalities == ("FLAIR", "T1", "T2")
        assert dropped(scan) == {bad.relative_to(archive).as_posix(): Reason.EMPTY_FILE}
        assert refused(archive, needed=["T1ce"]).reason == Reason.EMPTY_FILE

    def test_what_cannot_be_arranged_drops_out_alone(self, brats_case: Callable[..., Path]) -> None:
        archive = brats_case()
        bad = next(archive.rglob("*_t1ce.nii.gz")).relative_to(archive).as_posix()

        def arrange(images: list[Frame], masks: list[Frame]) -> Arranged:
            error = BadInput(Reason.UNPREPARABLE, f"{bad} has 9 slices", "choose another series")
            return Arranged([one for one in images if one.path != bad], masks, dropped=((bad, error),))

        scan = only(archive, arrange=arrange)
        assert scan.modalities == ("FLAIR", "T1", "T2")
        assert dropped(scan) == {bad: Reason.UNPREPARABLE}
        assert refused(archive, arrange=arrange, needed=["T1ce"]).reason == Reason.UNPREPARABLE

    def test_no_scan_without_one_of_its_modalities(self, tmp_path: Path) -> None:
        (tmp_path / "p7").mkdir()
        (tmp_path / "p7" / "p7_T1.nii").write_bytes(b"")
        save(tmp_path / "p7" / "p7_adc.nii")
        assert refused(tmp_path).reason == Reason.EMPTY_FILE


class TestReading:
    """What happens to files between listing and loading."""

    def test_a_file_that_has_gone(self, brats_case: Callable[..., Path]) -> None:
        archive = brats_case()
        listing = find(str(archive))
        (archive / listing.scans[0].paths[1]).unlink()
        with pytest.raises(BadInput) as caught:
            load(listing.root, listing.scans[0])
        assert caught.value.reason == Reason.UNREADABLE

    def test_a_file_that_has_grown(self, brats_case: Callable[..., Path]) -> None:
        archive = brats_case()
        listing = find(str(archive))
        with (archive / listing.scans[0].paths[1]).open("ab") as file:
            file.write(b"more")
        with pytest.raises(BadInput, match="changed") as caught:
            load(listing.root, listing.scans[0])
        assert caught.value.reason == Reason.UNREADABLE

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_rights(self, brats_case: Callable[..., Path]) -> None:
        archive = brats_case()
        listing = find(str(archive))
        closed, *others = listing.scans[0].paths
        (archive / closed).chmod(0)
        (dropped,) = load(listing.root, listing.scans[0]).dropped
        assert (dropped.reason, dropped.paths) == (Reason.UNREADABLE, (closed,))
        for path in others:
            (archive / path).chmod(0)
        with pytest.raises(BadInput) as caught:
            load(listing.root, listing.scans[0])
        assert caught.value.reason == Reason.UNREADABLE

    def test_sources_and_refusals_travel_to_workers(self, brats_case: Callable[..., Path]) -> None:
        listing = find(str(brats_case()))
        assert pickle.loads(pickle.dumps(listing)) == listing
        error = refused(brats_case(), max_voxels=1)
        again = pickle.loads(pickle.dumps(error))
        assert (again.reason, str(again)) == (error.reason, str(error))
