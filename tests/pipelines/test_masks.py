"""Masks as files for other tools, read back by nibabel and pydicom and compared in the space of the source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pyspark.sql import SparkSession

from segpipe.models.bundle import Bundle
from segpipe.pipelines import masks
from segpipe.readers.naming import KEY_VARIABLE
from segpipe.readers.synthetic import glioma
from segpipe.runtimes.export import export
from tests.mr_image import axes_of, mr_image, write
from tests.pipelines.cohorts import COHORT, Cohort
from tests.pipelines.deadly import In
from tests.runtimes.models import MODALITIES, tiny_bundle

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([1.0, 1.5, 3.0]), [-20.0, 11.0, 5.0]
)
RAS, AFL = np.eye(4), np.array([[0, 0, -1.0, 30], [2.0, 0, 0, -3], [0, 1.0, 0, 0], [0, 0, 0, 1]])
SOURCES = {
    "Plain_1": (nib.Nifti1Image, RAS, "<"),
    "Oblique_1": (nib.Nifti1Image, OBLIQUE, ">"),
    "Turned_1": (nib.Nifti2Image, AFL, "<"),
}
NAMES_2023 = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(tiny_bundle(str(tmp_path_factory.mktemp("model") / "m")).url)


@pytest.fixture(scope="module")
def cohort(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Scans whose files differ in direction, container and byte order; one has labels of BraTS 2023."""
    folder = tmp_path_factory.mktemp("masks")
    for seed, (subject, (kind, affine, order)) in enumerate(SOURCES.items()):
        made = glioma(np.random.default_rng(seed), (8, 32, 28))
        roles = {**made.images, "seg": made.mask}
        for role, array in roles.items():
            image = kind(np.ascontiguousarray(array.T), affine, kind.header_class(endianness=order))
            image.header.set_qform(affine, 2)
            path = folder / "archive" / subject / f"{subject}_{role}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image, path)
    made = glioma(np.random.default_rng(9), (8, 32, 28))
    later = folder / "archive" / "BraTS-GLI-00001-000"
    later.mkdir()
    for role, array in {**made.images, "seg": np.where(made.mask == 4, 3, made.mask)}.items():
        name = f"{later.name}-{NAMES_2023.get(role, role)}.nii.gz"
        nib.save(nib.Nifti1Image(array.T.astype(np.int16), np.diag([-1.0, -1, 1, 1])), later / name)
    return Cohort(spark, folder / "archive", str(folder / "warehouse"))


def predicted(cohort: Cohort) -> dict[str, np.ndarray]:
    """Label maps (slices, rows, columns) by scan_id, as `predictions` holds them."""
    planes: dict[str, list[np.ndarray]] = {}
    for row in cohort.rows("predictions", "scan_id", "slice_index"):
        plane = np.frombuffer(row["mask"], np.uint8).reshape(row["height"], row["width"])
        planes.setdefault(row["scan_id"], []).append(plane)
    return {scan_id: np.stack(found) for scan_id, found in planes.items()}


def at_places(labels: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], file_affine: np.ndarray) -> np.ndarray:
    """The label at each voxel centre of a file, found by way of the patient's space."""
    there = np.indices(shape).reshape(3, -1)
    here = np.linalg.inv(affine) @ file_affine @ np.vstack([there, np.ones(there.shape[1])])
    index = np.rint(here[:3]).astype(int)
    assert np.abs(here[:3] - index).max() < 1e-3
    return labels[tuple(index)].reshape(shape)


def source_image(cohort: Cohort, subject: str) -> nib.Nifti1Image:
    return nib.load(
        next(path for path in cohort.archive.rglob("*.nii.gz") if subject in path.name and "t1" in path.name)
    )


def nifti_files(folder: Path) -> dict[str, Path]:
    return {path.parent.parent.name: path for path in folder.rglob("*.nii.gz")}


def test_a_scan_that_kills_whoever_writes_its_mask_costs_no_other_mask(
    cohort: Cohort, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = Cohort(cohort.spark, cohort.archive, str(tmp_path / "w"))
    deadly = "c:BraTS-GLI-00001:000"
    In(masks, "write_group", masks, "label_map", lambda _, place, *__: place.scan_id == deadly).put(monkeypatch)
    _, run = cohort.segment(model.url, source=str(cohort.archive), nifti=str(tmp_path / "out"))
    assert (run.counts["mask_files_written"], run.counts["mask_files_failed"]) == (3, 1)
    assert f"Scan {deadly} killed 2 workers" in "".join(run.lines)


@pytest.mark.parametrize("straight", [False, True], ids=["from the tables", "straight from the archive"])
def test_nifti_masks_lie_where_their_source_lies(cohort: Cohort, model: Bundle, tmp_path: Path, straight: bool) -> None:
    cohort = Cohort(cohort.spark, cohort.archive, str(tmp_path / "w"))
    cohort.ingest()
    scans = {row["subject"]: row for row in cohort.rows("scans", "scan_id")}
    options: dict[str, Any] = {"nifti": str(tmp_path / "out")}
    if straight:
        shutil.rmtree(cohort.url)
        options["source"] = str(cohort.archive)
    _, run = cohort.segment(model.url, **options)
    labels, found = predicted(cohort), nifti_files(tmp_path / "out")
    assert set(found) == set(scans) == {*SOURCES, "BraTS-GLI-00001"}
    assert run.counts["mask_files_written"] == 4
    for subject, path in found.items():
        mask, source = nib.load(path), source_image(cohort, subject)
        assert mask.shape == source.shape
        assert type(mask) is type(source)
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-5)
        assert (mask.header["qform_code"], mask.header["sform_code"]) == (
            source.header["qform_code"],
            source.header["sform_code"],
        )
        assert mask.get_data_dtype() == np.uint8
        affine = np.reshape(scans[subject]["affine"], (4, 4))
        wanted = at_places(labels[scans[subject]["scan_id"]], affine, mask.shape, mask.affine)
        if subject == "BraTS-GLI-00001":
            wanted = np.where(wanted == 4, 3, wanted)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), wanted)
        assert {1, 2} < set(np.unique(wanted))
        convention = "brats2023" if subject == "BraTS-GLI-00001" else "brats"
        assert mask.header.get_intent()[::2] == ("label", convention)
        assert model.model_id in str(mask.header["descrip"])


def test_only_what_is_missing_or_old_is_written(cohort: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = Cohort(cohort.spark, cohort.archive, str(tmp_path / "w"))
    out = tmp_path / "out"
    cohort.segment(model.url, source=str(cohort.archive))
    _, run = cohort.segment(model.url, source=str(cohort.archive), nifti=str(out))
    assert (run.counts["scans_segmented"], run.counts["mask_files_written"]) == (0, 4)
    found = nifti_files(out)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in found.values()}
    found["Plain_1"].unlink()
    found["Turned_1"].write_bytes(found["Turned_1"].read_bytes()[:10])
    _, run = cohort.segment(model.url, source=str(cohort.archive), nifti=str(out))
    assert (run.counts["mask_files_written"], run.counts["mask_files_kept"]) == (2, 2)
    assert {path: path.read_bytes() for path in before} == {path: data for path, (data, _) in before.items()}
    assert found["Oblique_1"].stat().st_ino == before[found["Oblique_1"]][1]
    _, run = cohort.segment(model.url, source=str(cohort.archive), nifti=str(out), overwrite=True)
    assert run.counts["mask_files_written"] == 4
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [f"{model.model_id}.nii.gz"] * 4


def write_dicom(folder: Path, seed: int, tilt: float) -> dict[str, pydicom.Dataset]:
    """One study with a series per modality, slices in no order; its images by SOP instance UID."""
    made = glioma(np.random.default_rng(seed), (8, 32, 28))
    rotation = nib.eulerangles.euler2mat(0, 0, tilt)
    folder.mkdir(parents=True)
    images = {}
    for number, name in enumerate(MODALITIES):
        for index in np.random.default_rng(seed).permutation(8).tolist():
            image = mr_image(
                *(f"1.2.3.{seed}", number, index + 1, name, made.images[name.lower()][index]),
                PatientID=f"P{seed}",
                ImagePositionPatient=[round(value, 6) for value in (rotation @ [5.0, -7.0, 3.0 * index]).tolist()],
                ImageOrientationPatient=axes_of(rotation[:, 0], rotation[:, 1]),
                PixelSpacing=[1.5, 1.25],
                SliceThickness=3.0,
            )
            write(image, folder / f"IM{number}{index}")
            images[image.SOPInstanceUID] = image
    return images


def test_dicom_seg_lies_on_the_slices_it_refers_to(
    spark: SparkSession, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen bytes")
    images = write_dicom(tmp_path / "archive", seed=4, tilt=0.3)
    cohort = Cohort(spark, tmp_path / "archive", str(tmp_path / "w"))
    folders = {name: str(tmp_path / name) for name in ("dicom_seg", "dicom_sr", "nifti")}
    options = {"source": str(cohort.archive), **folders}
    outcome, run = cohort.segment(model.url, **options)
    assert (len(outcome.segmented), run.counts["mask_files_written"], run.lines) == (1, 3, [])
    (report,) = (tmp_path / "dicom_sr").rglob("*.dcm")
    told = str(pydicom.dcmread(report))
    for row in cohort.rows("segmentations", "region"):
        assert row["region"] in told
        assert f"{row['volume_ml']:.3f}".rstrip("0") in told
    (path,) = (tmp_path / "dicom_seg").rglob("*.dcm")
    assert "Doe" not in str(path)
    seg = pydicom.dcmread(path)
    assert (seg.Modality, seg.PatientID, seg.StudyInstanceUID) == ("SEG", "P4", "1.2.3.4")
    assert [one.SegmentLabel for one in seg.SegmentSequence] == list(model.labels.values())
    (labels,) = predicted(cohort).values()
    assert {0, 1, 2, 4} == set(np.unique(labels))
    values = sorted(map(int, model.labels))
    (nifti,) = (tmp_path / "nifti").rglob("*.nii.gz")
    mask = nib.load(nifti)
    found = np.zeros(mask.shape, np.uint8)
    frames = seg.pixel_array.reshape(-1, 32, 28)
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient).reshape(2, 3)
    row_mm, column_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        reference = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(position, images[reference].ImagePositionPatient, atol=1e-4)
        assert images[reference].SeriesDescription == "FLAIR"
        value = values[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        rows, columns = np.nonzero(frame)
        lps = position[:, None] + orientation[:1].T * columns * column_mm + orientation[1:].T * rows * row_mm
        index = np.linalg.inv(mask.affine) @ np.vstack([-lps[0], -lps[1], lps[2], np.ones(lps.shape[1])])
        assert np.abs(index - np.rint(index)).max() < 1e-3
        found[tuple(np.rint(index[:3]).astype(int))] = value
    np.testing.assert_array_equal(found, np.asarray(mask.dataobj))
    assert [(found == value).sum() for value in values] == [(labels == value).sum() for value in values]
    before = path.read_bytes()
    _, run = cohort.segment(model.url, **options)
    assert (run.counts["mask_files_written"], run.counts["mask_files_kept"]) == (0, 3)
    assert (run.counts["files_listed"], run.counts["headers_read"]) == (32, 0)
    assert path.read_bytes() == before


def test_masks_of_nothing_are_files_too(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen bytes")
    write_dicom(tmp_path / "archive", seed=5, tilt=0.0)
    model = export(tiny_bundle(str(tmp_path / "m"), bias=-50.0).url)
    cohort = Cohort(spark, tmp_path / "archive", str(tmp_path / "w"))
    options = {"source": str(cohort.archive), "dicom_seg": str(tmp_path / "seg"), "nifti": str(tmp_path / "nifti")}
    _, run = cohort.segment(model.url, **options)
    assert (run.counts["mask_files_written"], run.lines) == (2, [])
    assert not pydicom.dcmread(next((tmp_path / "seg").rglob("*.dcm"))).pixel_array.any()


def test_a_series_that_no_seg_can_refer_to(
    spark: SparkSession, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen bytes")
    write_dicom(tmp_path / "archive", seed=6, tilt=0.0)
    for path in (tmp_path / "archive").iterdir():
        image = pydicom.dcmread(path)
        del image.FrameOfReferenceUID
        image.save_as(path)
    cohort = Cohort(spark, tmp_path / "archive", str(tmp_path / "w"))
    folders = {"dicom_seg": str(tmp_path / "seg"), "dicom_sr": str(tmp_path / "sr")}
    outcome, run = cohort.segment(model.url, source=str(cohort.archive), **folders)
    assert len(outcome.segmented) == 1
    assert (run.counts["mask_files_failed"], run.counts["mask_files_written"]) == (1, 1)
    assert len(list((tmp_path / "sr").rglob("*.dcm"))) == 1  # a report needs no frame of reference
    assert outcome.masks_failed == 1
    assert "cannot be referred to by a SEG: it lacks FrameOfReferenceUID" in run.lines[0]
    assert f"{COHORT}:" in run.lines[0]
    assert "Jane" not in run.lines[0]
