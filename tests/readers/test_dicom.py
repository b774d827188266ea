"""DICOM series: geometry, transfer syntaxes, identities kept out, hostile files."""

from __future__ import annotations

import gzip
import io
import itertools
import math
import pickle
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

from segpipe.errors import BadInput, Reason, UsageError
from segpipe.readers import dicom, nifti
from segpipe.readers.archive import Entry
from segpipe.readers.dicom_index import Reducer, Series, header
from segpipe.readers.locate import locate
from segpipe.readers.naming import KEY_VARIABLE, SubjectKey
from segpipe.readers.scan import LoadedScan, load, restore
from segpipe.readers.sources import Listing, find
from tests.mr_image import INT16, dataset_of
from tests.tiers import examples

KEY = b"a secret of more than sixteen bytes"
NAME = "Doe^Jane"
BIRTH = "19510203"


def image(**attributes: Any) -> Dataset:
    """One axial slice of 4 rows and 3 columns."""
    values = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": "1.2.3.1",
        "PatientName": NAME,
        "PatientID": "4711",
        "PatientBirthDate": BIRTH,
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesDescription": "AX T1 of Jane",
        "ImageComments": "Jane is nervous",
        "Modality": "MR",
        "InstanceNumber": 1,
        "Rows": 4,
        "Columns": 3,
        **INT16,
        "ImagePositionPatient": [10.0, 20.0, 30.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [2.0, 0.5],
        "SliceThickness": 3.0,
        "PixelData": np.arange(12, dtype="<i2").tobytes(),
        **attributes,
    }
    return dataset_of(values)


def data_of(dataset: Dataset, syntax: str = ExplicitVRLittleEndian, preamble: bool = True) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = io.BytesIO()
    if preamble:
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    else:
        del dataset.file_meta
        pydicom.dcmwrite(file, dataset, implicit_vr=True, little_endian=True)
    return file.getvalue()


def stack(count: int = 5, **attributes: Any) -> list[Dataset]:
    """A series whose slices lie 3 mm apart; slice n holds the values from 100 n on."""
    return [
        image(
            SOPInstanceUID=f"1.2.3.4.{n}",
            InstanceNumber=n + 1,
            ImagePositionPatient=[10.0, 20.0, 30.0 + 3 * n],
            PixelData=(np.arange(12, dtype="<i2") + 100 * n).tobytes(),
            **attributes,
        )
        for n in range(count)
    ]


def volume_of(datasets: list[Dataset], **options: Any) -> Any:
    contents = [data_of(dataset) for dataset in datasets]
    return dicom.series(contents, [f"IM{n}" for n in range(len(contents))], options.get("max_voxels", 10_000))


def refused(datasets: list[Dataset], **options: Any) -> Reason:
    with pytest.raises(BadInput) as caught:
        volume_of(datasets, **options)
    assert "Jane" not in str(caught.value)
    return caught.value.reason


def enhanced(parts: list[tuple[float, str]]) -> Dataset:
    """An enhanced T2 of three slices with a volume for each echo time, ms, and component; the n-th has the value n."""
    frames = []
    for slice_, (echo, component) in itertools.product(range(3), parts):
        frame = Dataset()
        frame.PlanePositionSequence, frame.MREchoSequence, frame.MRImageFrameTypeSequence = ([Dataset()] for _ in "abc")
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 4.0 * slice_]
        frame.MREchoSequence[0].EffectiveEchoTime = echo
        frame.MRImageFrameTypeSequence[0].ComplexImageComponent = component
        frames.append(frame)
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [Dataset()], [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    values = np.tile(np.arange(len(parts)) + 1, 3).astype("<i2")
    pixels = np.repeat(values, 12).reshape(-1, 4, 3)
    pixels[:, 0] = 0
    return image(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        SeriesDescription="T2 tra",
        RepetitionTime=4000,
        ScanningSequence="SE",
        NumberOfFrames=len(frames),
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
        PixelData=pixels.tobytes(),
    )


def same_plane(one: Any, other: Any) -> bool:
    """Whether two images are the same in all that a volume is made of."""
    exact = all(getattr(one, name) == getattr(other, name) for name in ("thickness", "slope", "inter", "time", "kind"))
    arrays = ("position", "along_columns", "along_rows", "pixels")
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return exact and same and one.pixels.dtype == other.pixels.dtype


def archive(folder: Path, datasets: list[Dataset]) -> Path:
    """The files in an order that says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    order = list(range(len(datasets)))
    random.Random(0).shuffle(order)
    for name, place in enumerate(order):
        (folder / f"IM{name:04d}").write_bytes(data_of(datasets[place]))
    return folder


def load_all(listing: Listing) -> list[LoadedScan]:
    return [load(listing.root, source) for source in listing.scans]


class TestGeometry:
    """Where the voxels of a series lie."""

    def test_slices_are_ordered_by_position(self) -> None:
        datasets = stack()
        random.Random(3).shuffle(datasets)
        volume = volume_of(datasets)
        assert volume.voxels.shape == (3, 4, 5)
        assert volume.voxels[2, 1, 4] == 400 + 1 * 3 + 2
        wanted = [[-0.5, 0, 0, -10], [0, -2.0, 0, -20], [0, 0, 3.0, 30], [0, 0, 0, 1]]
        np.testing.assert_allclose(volume.affine, wanted)

    def test_the_thickness_of_a_slab_is_no_distance(self) -> None:
        slab, plain = volume_of(stack(SliceThickness=160.0)), volume_of(stack())
        np.testing.assert_array_equal(slab.affine, plain.affine)
        np.testing.assert_array_equal(slab.voxels, plain.voxels)

    def test_directions_that_differ_by_rounding_are_one_series(self, tmp_path: Path) -> None:
        datasets = stack(6)
        for number, dataset in enumerate(datasets):
            sine = 0.115 + (1e-6 if number % 2 else -1e-6)
            cosine = math.sqrt(1 - sine * sine)
            dataset.ImageOrientationPatient = [f"{x:.10g}" for x in (cosine, sine, 0, -sine, cosine, 0)]
        listing = find(str(archive(tmp_path, datasets)), "dicom", KEY)
        assert [one.series.count for one in listing.series] == [6]
        (scan,) = load_all(listing)
        assert scan.shape == (6, 4, 3)

    def test_bits_that_are_not_used_are_no_part_of_a_value(self) -> None:
        used = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
        datasets = stack(3, **used)
        for dataset in datasets:
            values = np.frombuffer(dataset.PixelData, "<u2") | 0xA000  # an overlay in the upper bits (PS3.5, 8.1.2)
            dataset.PixelData = values.tobytes()
        np.testing.assert_array_equal(volume_of(datasets).voxels, volume_of(stack(3, **used)).voxels)

    def test_a_slice_that_is_there_twice_is_dropped_or_named(self) -> None:
        again = stack()[2]
        again.SOPInstanceUID = "1.2.3.4.99"
        np.testing.assert_array_equal(volume_of([*stack(), again]).voxels, volume_of(stack()).voxels)
        again.PixelData = (np.frombuffer(again.PixelData, "<i2") + 1).tobytes()
        with pytest.raises(BadInput, match="two different images of the same slice at 1 positions") as caught:
            volume_of([*stack(), again])
        assert caught.value.reason == Reason.DUPLICATE

    def test_rescale_is_kept(self) -> None:
        volume = volume_of(stack(RescaleSlope="2.5", RescaleIntercept="-10"))
        assert (volume.slope, volume.inter) == (2.5, -10.0)
        assert volume.voxels.dtype == np.int16

    def test_rescale_that_differs_by_slice_is_applied(self) -> None:
        datasets = stack(2)
        datasets[1].RescaleSlope, datasets[1].RescaleIntercept = "2", "1"
        volume = volume_of(datasets)
        assert volume.voxels.dtype == np.float32
        assert volume.voxels[1, 0, 1] == 101 * 2 + 1
        assert (volume.slope, volume.inter) == (1.0, 0.0)

    def test_times_are_a_fourth_axis(self) -> None:
        early, late = stack(3, AcquisitionNumber=1), stack(3, AcquisitionNumber=2)
        for dataset in late:
            dataset.SOPInstanceUID += ".2"
            dataset.PixelData = (np.frombuffer(dataset.PixelData, "<i2") + 1000).astype("<i2").tobytes()
        volume = volume_of([*late, *early])
        assert volume.voxels.shape == (3, 4, 3, 2)
        np.testing.assert_array_equal(volume.voxels[..., 1] - volume.voxels[..., 0], 1000)

    def test_multi_frame_images_have_their_places_frame_by_frame(self) -> None:
        frames = [Dataset() for _ in range(3)]
        for number, frame in enumerate(frames):
            frame.PlanePositionSequence = [Dataset()]
            frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, -2.0 * number]
        shared = Dataset()
        shared.PlaneOrientationSequence = [Dataset()]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PixelMeasuresSequence = [Dataset()]
        shared.PixelMeasuresSequence[0].PixelSpacing = [1, 1]
        pixels = np.arange(36, dtype="<i2").reshape(3, 4, 3)
        dataset = image(
            NumberOfFrames=3,
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            PixelSpacing=None,
            PerFrameFunctionalGroupsSequence=frames,
            SharedFunctionalGroupsSequence=[shared],
            PixelData=pixels.tobytes(),
        )
        volume = volume_of([dataset])
        np.testing.assert_array_equal(volume.voxels, pixels[::-1].transpose(2, 1, 0))
        assert volume.affine[2].tolist() == [0, 0, 2, -4]

    @pytest.mark.parametrize(
        ("parts", "wanted"),
        [
            ([(14.0, "MAGNITUDE"), (98.0, "MAGNITUDE")], ("T2", 1)),
            ([(98.0, "MAGNITUDE"), (98.0, "PHASE")], ("T2", 0)),
            ([(14.0, "MAGNITUDE"), (30.0, "MAGNITUDE"), (98.0, "MAGNITUDE")], None),
        ],
        ids=["two echoes", "magnitude and phase", "three echoes"],
    )
    def test_the_volume_of_an_enhanced_file_that_is_a_modality(
        self, tmp_path: Path, parts: list[tuple[float, str]], wanted: tuple[str, int] | None
    ) -> None:
        dataset = enhanced(parts)
        (tmp_path / "IM").write_bytes(data_of(dataset))
        listing = find(str(tmp_path), "dicom", KEY)
        (one,) = listing.series
        if wanted is None:
            assert (one.decision, listing.scans) == ("excluded", [])
            return
        assert (one.role, one.volume) == wanted
        scan = load(listing.root, listing.scans[0])
        assert set(np.unique(scan.images["T2"])) == {0, wanted[1] + 1}
        restored = restore(scan.file_rows, [scan.images["T2"]], scan.orientation)
        assert restored.voxels.shape == (3, 4, 3)

    def test_plain_files_are_read_as_pydicom_reads_them(self, real_data: Path) -> None:
        plain = 0
        for path in sorted((real_data / "odd").rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            content = gzip.decompress(content) if path.name.endswith(".dcm.gz") else content
            ours = dicom._plain(content, path.name, 1 << 26) if content[128:132] == b"DICM" else None
            if ours is not None:
                plain += 1
                (theirs,) = dicom._parsed(content, path.name, 1 << 26)
                assert same_plane(ours, theirs), path
        assert plain >= 3

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0},
            {"BitsStored": 12, "HighBit": 11},
            {"RescaleSlope": "2.5", "RescaleIntercept": -7, "SpacingBetweenSlices": 3.3},
            {"EchoTime": "1.5E+1", "AcquisitionNumber": 4, "TemporalPositionIdentifier": 2, "NumberOfFrames": 1},
        ],
        ids=["plain", "unsigned", "fewer bits", "scaled", "times"],
    )
    def test_generated_files_are_read_as_pydicom_reads_them(self, syntax: str, changes: dict[str, Any]) -> None:
        noise = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, 12).astype("<i2")
        content = data_of(image(PixelData=noise.tobytes(), **changes), syntax)
        ours = dicom._plain(content, "a", 12)
        assert ours is not None
        (theirs,) = dicom._parsed(content, "a", 12)
        assert same_plane(ours, theirs)

    @pytest.mark.parametrize(
        "changes",
        [
            {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]},
            {"NumberOfFrames": 2},
            {"SamplesPerPixel": 3},
            {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
            {"BitsStored": 12, "HighBit": 13},
            {"PixelData": bytes(20)},
            {"Rows": 5},
            {"PhotometricInterpretation": "PALETTE COLOR"},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_other_files_are_left_to_pydicom(self, changes: dict[str, Any]) -> None:
        assert dicom._plain(data_of(image(**changes)), "a", 1 << 20) is None
        assert dicom._plain(data_of(image(), ExplicitVRBigEndian), "a", 1 << 20) is None
        assert dicom._plain(data_of(image()), "a", 11) is None

    @pytest.mark.parametrize(
        ("series", "reference"),
        [
            ("ax/axasc35", "ax_asc_35sl_6.nii"),
            ("cor/corasc35", "cor_asc_35sl_16.nii"),
            ("sag/sagasc35", "sag_asc_35sl_22.nii"),
            ("axmb/AxAsc36mb2a", "fMRI_MB_asc_25.nii"),
        ],
    )
    def test_real_mosaics_equal_their_reference(
        self, real_data: Path, tmp_path: Path, series: str, reference: str
    ) -> None:
        folder = real_data / "odd" / "dcm_qa"
        (tmp_path / "series").mkdir()
        for path in (folder / "dicom" / series).iterdir():
            if path.suffix != ".nii":
                shutil.copy(path, tmp_path / "series")
        (tmp_path / "m.csv").write_text("subject,modality,path\np,image,series\n")
        (ours,) = load_all(find(str(tmp_path / "m.csv")))
        shutil.copy(folder / reference, tmp_path / "image.nii")  # whose name says nothing of what it shows
        (theirs,) = load_all(find(str(tmp_path / "image.nii")))
        assert ours.modalities == theirs.modalities
        for name in ours.images:
            np.testing.assert_array_equal(ours.images[name], theirs.images[name])
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=2e-2)
        np.testing.assert_allclose(ours.spacing_mm, theirs.spacing_mm, atol=1e-3)


class TestSyntax:
    """The ways that pixels are stored."""

    @pytest.mark.parametrize(
        "kind", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"]
    )
    def test_real_syntaxes_hold_the_same_pixels(self, real_data: Path, kind: str) -> None:
        folder = real_data / "odd" / "pydicom"
        plain = dicom.series([(folder / "MR_small.dcm").read_bytes()], ["a"], 10_000)
        other = dicom.series([(folder / f"MR_small_{kind}.dcm").read_bytes()], ["b"], 10_000)
        np.testing.assert_array_equal(other.voxels, plain.voxels)
        np.testing.assert_array_equal(other.affine, plain.affine)

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
    def test_generated_syntaxes(self, syntax: str) -> None:
        pixels = np.arange(12, dtype=">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes()
        volume = dicom.series([data_of(image(PixelData=pixels), syntax)], ["a"], 100)
        np.testing.assert_array_equal(volume.voxels[..., 0].T.ravel(), np.arange(12))

    def test_gzipped_and_without_preamble(self, tmp_path: Path) -> None:
        (tmp_path / "a.dcm.gz").write_bytes(gzip.compress(data_of(image())))
        (tmp_path / "b.dcm").write_bytes(
            data_of(image(StudyInstanceUID="1.9", SeriesInstanceUID="1.9.2", SOPInstanceUID="1.9.1"), preamble=False)
        )
        scans = load_all(find(str(tmp_path), "dicom", KEY))
        assert len(scans) == 2
        np.testing.assert_array_equal(*(next(iter(scan.images.values())) for scan in scans))


class TestRefusals:
    """What is wrong with a series, by its reason."""

    def test_a_missing_slice(self) -> None:
        datasets = stack()
        del datasets[2]
        assert refused(datasets) == Reason.BAD_GEOMETRY

    def test_a_missing_time(self) -> None:
        datasets = [*stack(3), *stack(3)]
        del datasets[2]
        assert refused(datasets) == Reason.TRUNCATED

    def test_mixed_directions(self) -> None:
        datasets = stack(2)
        datasets[1].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        assert refused(datasets) == Reason.GRID_MISMATCH

    def test_no_place(self) -> None:
        assert refused([image(ImagePositionPatient=None)]) == Reason.BAD_GEOMETRY

    def test_no_spacing(self) -> None:
        assert refused([image(PixelSpacing=[0, 0])]) == Reason.BAD_GEOMETRY

    def test_no_pixels(self) -> None:
        assert refused([image(PixelData=None)]) == Reason.NOT_AN_IMAGE

    def test_too_few_pixels(self) -> None:
        assert refused([image(PixelData=b"\0" * 20)]) == Reason.TRUNCATED

    def test_too_many_voxels(self) -> None:
        assert refused([image(Rows=60000, Columns=60000)]) == Reason.TOO_LARGE
        assert refused(stack(5), max_voxels=40) == Reason.TOO_LARGE

    def test_colour(self) -> None:
        dataset = image(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
        assert refused([dataset]) == Reason.UNSUPPORTED

    def test_a_mosaic_without_its_header(self) -> None:
        assert refused([image(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])]) == Reason.UNSUPPORTED

    def test_a_real_truncated_file(self, real_data: Path) -> None:
        data = (real_data / "odd" / "pydicom" / "MR_truncated.dcm").read_bytes()
        with pytest.raises(BadInput) as caught:
            dicom.series([data], ["a"], 10_000)
        assert caught.value.reason == Reason.TRUNCATED

    def test_a_gzip_bomb(self) -> None:
        with pytest.raises(BadInput) as caught:
            dicom.series([gzip.compress(bytes(40 << 20))], ["a"], 10_000)
        assert caught.value.reason == Reason.TOO_LARGE


class TestListing:
    """Series to scans."""

    def test_series_that_tell_a_modality_are_one_scan(self, tmp_path: Path) -> None:
        series = []
        words = ("t2 tirm FLAIR", "AX T1", "AX T1 POST", "localizer", "AX T2")
        for number, text in enumerate(words):
            for dataset in stack(3, SeriesDescription=text, SeriesInstanceUID=f"1.2.3.{number}"):
                dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{dataset.InstanceNumber}"
                series.append(dataset)
        listing = find(str(archive(tmp_path, series)), "dicom", KEY)
        assert not listing.rejected
        assert [scan.modalities for scan in listing.scans] == [("FLAIR", "T1", "T1ce", "T2")]
        assert [one.reason for one in listing.series if one.decision == "excluded"] == ["localizer"]
        assert listing.ignored == 0
        for scan in load_all(listing):
            assert scan.shape == (3, 4, 3)

    def test_of_two_series_of_one_modality_the_later_is_taken(self, tmp_path: Path) -> None:
        series = [
            image(SeriesInstanceUID=f"1.2.{n}", SOPInstanceUID=f"1.2.{n}.1", SeriesTime=f"1000{n}0") for n in range(2)
        ]
        listing = find(str(archive(tmp_path, series)), "dicom", KEY)
        assert [scan.modalities for scan in listing.scans] == [("T1",)]
        assert [(one.decision, one.reason, one.seconds) for one in sorted(listing.series, key=lambda x: x.seconds)] == [
            ("not selected", "it was repeated later", 0.0),
            ("selected", "", 10.0),
        ]

    def test_copies_are_duplicates(self, tmp_path: Path) -> None:
        folder = archive(tmp_path, stack(3))
        shutil.copy(folder / "IM0000", folder / "copy")
        listing = find(str(folder), "dicom", KEY)
        assert [item.reason for item in listing.rejected] == [Reason.DUPLICATE]
        assert len(load_all(listing)) == 1

    def test_a_manifest_names_the_subject_and_the_modality_of_a_series(self, tmp_path: Path) -> None:
        archive(tmp_path / "first", stack(3))
        archive(tmp_path / "deep" / "er", stack(3))
        (tmp_path / "m.csv").write_text("subject,modality,path\np1,T2,first\np1,FLAIR,deep/er\n")
        listing = find(str(tmp_path / "m.csv"))
        assert not listing.rejected
        (scan,) = load_all(listing)
        assert (scan.source.subject, scan.modalities) == ("p1", ("FLAIR", "T2"))
        np.testing.assert_array_equal(scan.images["T2"], scan.images["FLAIR"])
        assert find(str(tmp_path / "m.csv")).scans == listing.scans

    def test_a_folder_of_a_manifest_holds_one_series(self, tmp_path: Path) -> None:
        for number in range(2):
            archive(tmp_path / "two" / str(number), stack(3, SeriesInstanceUID=f"1.2.{number}"))
        (tmp_path / "none").mkdir()
        (tmp_path / "none" / "notes.txt").write_text("no image")
        copies = archive(tmp_path / "copies", stack(3))
        for name in ("a", "b", "c"):
            shutil.copy(copies / "IM0000", copies / name)
        (tmp_path / "m.csv").write_text("subject,modality,path\np1,T2,two\np2,T2,two/1\np3,T2,none\np4,T2,copies\n")
        listing = find(str(tmp_path / "m.csv"))
        assert sorted(item.message for item in listing.rejected) == [
            "copies/a is the same DICOM image as copies/IM0000; 2 more in copies cannot be used",
            "none holds 0 DICOM series",
            "two holds 2 DICOM series",
        ]
        assert [scan.subject for scan in listing.scans] == ["p2"]

    def test_a_series_is_restored_as_nifti(self, tmp_path: Path) -> None:
        listing = find(str(archive(tmp_path, stack(5, RescaleSlope="2"))), "dicom", KEY)
        (scan,) = load_all(listing)
        volume = nifti.parse(nifti.to_bytes(restore(scan.file_rows, list(scan.images.values()), scan.orientation)))
        wanted = volume_of(stack(5, RescaleSlope="2"))
        np.testing.assert_array_equal(volume.voxels, wanted.voxels)
        np.testing.assert_allclose(volume.affine, wanted.affine, atol=1e-5)
        assert volume.slope == 2

    def test_files_that_are_no_images(self, tmp_path: Path) -> None:
        archive(tmp_path, stack(2))
        (tmp_path / "README").write_text("read me")
        (tmp_path / "empty").write_bytes(b"")
        directory = image(Rows=None)
        (tmp_path / "DICOMDIR").write_bytes(data_of(directory))
        listing = find(str(tmp_path), "auto", KEY)
        assert len(listing.scans) == 1
        assert listing.ignored == 3


class TestIdentity:
    """Who the patient is stays in the archive."""

    def test_subjects_are_keyed_hashes(self, tmp_path: Path) -> None:
        folder = archive(tmp_path / "x", stack(2))
        one, again, other = (find(str(folder), "dicom", key).scans[0] for key in (KEY, KEY, b"other"))
        assert one == again
        assert one.subject != other.subject
        assert one.session != other.session

    def test_one_patient_is_one_subject_in_all_studies(self, tmp_path: Path) -> None:
        archive(tmp_path / "a", [image()])
        archive(tmp_path / "b", [image(StudyInstanceUID="9.9", SeriesInstanceUID="9.9.1", SOPInstanceUID="9.9.1.1")])
        scans = find(str(tmp_path), "dicom", KEY).scans
        assert len({scan.subject for scan in scans}) == 1
        assert len({scan.session for scan in scans}) == 2

    def test_who_has_the_key_finds_the_files_of_a_series_and_of_a_text(self, tmp_path: Path) -> None:
        archive(tmp_path / "a", stack(3))
        archive(tmp_path / "b", stack(2, SeriesInstanceUID="1.2.3.5"))
        listing = find(str(tmp_path), "dicom", KEY)
        key = SubjectKey(KEY)
        for one in listing.series:
            folder = one.series.first.partition("/")[0]
            files = sorted(f"{folder}/{path.name}" for path in (tmp_path / folder).iterdir())
            assert locate(str(tmp_path), one.facts.series, key, "dicom") == files
            assert locate(str(tmp_path), one.facts.text, key, "dicom") == ["a/IM0000", "b/IM0000"]
            assert locate(str(tmp_path), one.facts.text, SubjectKey(b"another secret of the owner"), "dicom") == []

    def test_hashes_tell_no_names(self, tmp_path: Path) -> None:
        rows = []
        for name in (NAME, "Roe^Richard"):
            listing = find(str(archive(tmp_path / name, stack(PatientName=name))), "dicom", KEY)
            (scan,) = load_all(listing)
            rows.append([(row["path"], row["sha256"]) for row in scan.file_rows])
        assert rows[0] == rows[1]

    def test_nothing_of_the_header_is_kept(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = archive(tmp_path / "Doe_Jane_4711", stack(3))
        listing = find(str(tmp_path), "auto", KEY)
        (scan,) = load_all(listing)
        kept = pickle.dumps([scan.file_rows, scan.statistics, listing.scans[0].subject, listing.scans[0].session])
        for secret in (NAME, "Jane", "4711", BIRTH, "nervous", "1.2.3"):
            assert secret.encode() not in kept, secret
            assert secret not in caplog.text
        assert folder.is_dir()

    def test_no_key_no_subject(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        folder = archive(tmp_path, [image()])
        with pytest.raises(UsageError, match=KEY_VARIABLE):
            find(str(folder), "dicom")
        listing = find(str(folder))
        assert not listing.scans
        assert KEY_VARIABLE in listing.rejected[0].remedy
        monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen bytes")
        assert find(str(folder)).scans == find(str(folder), "auto", KEY).scans


GOOD = data_of(image(AcquisitionDate="20200102", AcquisitionTime="101500"))
SECOND = data_of(image(AcquisitionDate="20200102", AcquisitionTime="101501", SOPInstanceUID="1.2.3.2"))


def index(*contents: bytes) -> list[Series]:
    """The series of some files, by their headers."""
    reducer = Reducer(KEY)
    for place, content in enumerate(contents):
        found = header(io.BytesIO(content), Entry(f"IM{place}", len(content), ""))
        if found is not None:
            reducer.add(found, io.BytesIO(content))
    return reducer.series()


@pytest.mark.parametrize(
    "time", [b"10\xb21501", b"\xb9\xb2\xb3\xb9\xb2\xb3", b"\xd9\xa1\xd9\xa0\xd9\xa1", b"999999", b"241500"]
)
def test_a_broken_time_costs_nothing_but_the_time(time: bytes) -> None:
    (one,) = index(SECOND, GOOD.replace(b"101500", time.ljust(6)[:6]), SECOND.replace(b"1.2.3.2", b"1.2.3.9"))
    assert one.count == 3
    assert one.moment == index(SECOND)[0].moment


@pytest.mark.parametrize(("time", "said"), [("101400", True), ("000000", False), ("00:00:00.000", False), ("", False)])
def test_midnight_is_no_time_of_a_bolus(time: str, said: bool) -> None:
    (one,) = index(data_of(image(AcquisitionDate="20200102", ContrastBolusStartTime=time)))
    assert (one.facts.bolus is not None) == said


def test_fat_saturation_is_no_image_of_fat() -> None:
    (one,) = index(data_of(image(ImageType=["ORIGINAL", "PRIMARY", "FAT_SAT", "M_SE"])))
    assert "FAT" not in one.facts.image_type
    assert "M_SE" in one.facts.image_type


@pytest.mark.parametrize("kinds", [("W", "F", "IP", "OP"), ("WATER", "FAT", "IN_PHASE", "OUT_PHASE")])
def test_images_of_a_dixon_series_are_taken_apart_by_what_they_show(kinds: tuple[str, ...]) -> None:
    files = [
        data_of(image(SOPInstanceUID=f"1.2.3.{n}", ImageType=["ORIGINAL", "PRIMARY", kind, kind]))
        for n, kind in enumerate(kinds)
    ]
    found = index(*files)
    assert [one.facts.image_type[2] for one in found] == ["WATER", "FAT", "IN_PHASE", "OPP_PHASE"]
    assert {one.facts.component for one in found} == {"magnitude"}
    assert len({one.facts.series for one in found}) == 4


@pytest.mark.parametrize(("time", "seconds"), [("1015", 0), ("101530", 30), ("101530.250", 30.25), ("10:15:30", 30)])
def test_times_are_read_to_the_fraction(time: str, seconds: float) -> None:
    first, other = index(GOOD)[0], index(data_of(image(AcquisitionDate="20200102", AcquisitionTime=time)))[0]
    assert first.moment is not None
    assert other.moment == first.moment + seconds


@given(st.data())
@settings(max_examples=examples(400), deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
def test_hostile_bytes_raise_bad_input_and_nothing_else(data: st.DataObject) -> None:
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content)))
        new = data.draw(st.binary(max_size=6))
        content[place : place + data.draw(st.integers(0, 6))] = new
    hostile = bytes(content)
    for attempt in (
        lambda: dicom.series([hostile], ["a"], 1 << 16),
        lambda: dicom.series([GOOD, hostile], ["a", "b"], 1 << 16),
        lambda: index(hostile),
        lambda: index(SECOND, hostile),
    ):
        try:
            attempt()
        except BadInput as error:
            assert "Jane" not in str(error)  # noqa: PT017


SIZ, COD, SOF = b"\xff\x4f\xff\x51", b"\xff\x52", b"\xff\xf7"


@pytest.mark.parametrize(
    ("kind", "marker", "place", "form", "value"),
    [
        ("jp2klossless", SIZ, 8, ">I", 60_000),  # width
        ("jp2klossless", SIZ, 12, ">I", 60_000),  # height
        ("jp2klossless", SIZ, 24, ">I", 0),  # width of a tile
        ("jp2klossless", SIZ, 40, ">H", 16_000),  # components
        ("jp2klossless", COD, 6, ">H", 65_535),  # layers
        ("jp2klossless", COD, 10, ">B", 200),  # width of a code block
        ("jpeg_ls_lossless", SOF, 5, ">H", 60_000),  # height
        ("jpeg_ls_lossless", SOF, 9, ">B", 200),  # components
    ],
)
def test_compressed_pixels_that_promise_more_are_not_decoded(
    real_data: Path, kind: str, marker: bytes, place: int, form: str, value: int
) -> None:
    data = bytearray((real_data / "odd" / "pydicom" / f"MR_small_{kind}.dcm").read_bytes())
    struct.pack_into(form, data, data.index(marker, data.index(b"\xe0\x7f\x10\x00")) + place, value)
    with pytest.raises(BadInput) as caught:
        dicom.series([bytes(data)], ["a"], 10_000)
    assert caught.value.reason == Reason.CORRUPT


def test_a_deflated_data_set_is_not_inflated() -> None:
    data = data_of(image(), DeflatedExplicitVRLittleEndian)
    with pytest.raises(BadInput) as caught:
        dicom.series([data], ["a"], 10_000)
    assert caught.value.reason == Reason.UNSUPPORTED


@pytest.mark.parametrize("kind", ["RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_hostile_compressed_pixels_raise_bad_input_and_nothing_else(real_data: Path, kind: str) -> None:
    content = (real_data / "odd" / "pydicom" / f"MR_small_{kind}.dcm").read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    rng = random.Random(0)
    refusals = 0
    for _ in range(200):
        data = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(start, min(len(data), start + 300))] = rng.randrange(256)
        try:
            dicom.series([bytes(data)], ["a"], 10_000)
        except BadInput:
            refusals += 1
    assert refusals > 20
