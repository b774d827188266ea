"""What labels mean: the data set's name, the user's word, or all masks together."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.regions import CONVENTIONS
from segpipe.errors import BadInput, Reason, UsageError
from segpipe.readers import inflate, itk, labels, nifti
from segpipe.readers.archive import ScanSource, SourceFile

OWN = """
name = "clinic"
[labels]
1 = "oedema"
2 = "core, solid"
[regions]
whole = [1, 2]
core = [2]
"""


def scan(name: str) -> ScanSource:
    """A scan with a mask."""
    return ScanSource(
        name, "1", (SourceFile("T1", f"{name}_T1.nii", 1, ""), SourceFile("mask", "m.nii", 1, "")), "plain"
    )


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        ("BraTS2021_00002", "brats"), ("Brats18_TCIA02_370", "brats"), ("BraTS-GLI-00005-000", "brats2023"),
        ("BraTS-GLI-02060-100", "brats2024"), ("BraTS-PED-00001", "brats-ped"), ("BraTS-MEN-00004-000", "brats2023"),
        ("BraTS-SSA-00002-000", "brats2023"), ("UPENN-GBM-00001", "brats"), ("UCSF-PDGM-0004", "brats"), ("P7", None),
        ("BraTS-GoAT-00001-000-t1n", "brats2023"), ("BraTS19_TCIA01_001_1", "brats"), ("BraTS20_Training_001", "brats"),
        ("BraTS-MET-00002-000", "brats2023"), ("Brats18_2013_2_1", "brats"),
    ],
)  # fmt: skip
def test_data_sets_are_known_by_name(name: str, convention: str | None) -> None:
    assert labels.convention_by_name(scan(name)) == convention


@pytest.mark.parametrize(
    ("folder", "file", "convention"),
    [
        ("BraTS_2023", "P1/t1n.nii.gz", "brats2023"), ("BraTS_2024_GLI", "P1/t1n.nii.gz", "brats2024"),
        ("brats_met_2023", "P1/T1.nii.gz", "brats2023"), ("BraTS-2024-MET", "P1/T1.nii.gz", "brats2023"),
        ("brats-africa", "P1/T1.nii.gz", "brats2023"), ("x", "brats/P1/P1-t2f.nii.gz", "brats2023"),
        ("BraTS", "P1/P1_flair.nii.gz", None), ("wmh", "P1/P1_T1.nii.gz", None),
        ("BraTS2023-PED", "BraTS-PED-00002-000/x-t2f.nii", "brats2023"),
        ("BraTS-PEDs2024", "BraTS-PED-00002-000/x-t2f.nii", "brats-ped"),
        ("BraTS2025-MET", "BraTS-MET-00100-000/x-t2f.nii", "brats2024"), ("x", "brats_men_rt/P1/t1c.nii", "binary"),
    ],
)  # fmt: skip
def test_data_sets_are_known_by_a_folder(folder: str, file: str, convention: str | None) -> None:
    files = (SourceFile("FLAIR", file, 1, ""), SourceFile("mask", "P1/m.nii", 1, ""))
    assert labels.convention_by_name(ScanSource("P1", "1", files, "plain"), folder) == convention


@pytest.mark.parametrize(
    ("masks", "convention"),
    [
        ([{1}, {1}, set()], "binary"),
        ([{1, 2, 4}, {1}, set()], "brats"),
        ([{1, 2, 3}, {1}], labels.OTHER),
        ([{1, 2, 4}, {9}], "brats"),
        ([set()], "binary"),
        ([{255}, set()], "binary|255=lesion|lesion=255"),
        ([{255}, {1}], "binary"),
    ],
    ids=str,
)
def test_masks_tell_together(masks: list[set[int]], convention: str) -> None:
    scans = [scan(f"P{number}") for number in range(len(masks))]
    settled = labels.with_shared_convention(
        scans, {one.identity: found for one, found in zip(scans, masks, strict=True)}
    )
    assert {one.label_convention for one in settled} == {convention}


def test_a_convention_of_the_users_own() -> None:
    name = labels.from_user("own.toml", OWN.encode())
    convention = CONVENTIONS[name]
    assert convention.labels == {1: "oedema", 2: "core  solid"}
    assert convention.regions == {"whole": (1, 2), "core": (2,)}
    assert labels.from_user("brats2024", None) == "brats2024"
    assert [one.label_convention for one in labels.with_convention([scan("BraTS2021_1")], name)] == [name]


@pytest.mark.parametrize(
    "content", [None, b"", b"x = [", b"[labels]\n1 = 'a'\n[regions]\nall = [1, 2]", b"\xff"], ids=str
)
def test_what_is_no_convention(content: bytes | None) -> None:
    with pytest.raises(UsageError, match="Label convention"):
        labels.from_user("mine", content)


@pytest.mark.parametrize(
    ("fields", "spacing"),
    [
        ({"pixdim": [0, 2, 3, 4]}, (2, 3, 4)),
        ({"pixdim": [2, 2, 3, 4]}, (2, 3, 4)),
        ({"pixdim": [1, -2, 3, 4]}, (2, 3, 4)),
        ({"pixdim": [1, 0, 3, 4]}, (1, 3, 4)),
        ({"quatern_b": np.sqrt(0.5000005), "quatern_c": np.sqrt(0.5000005)}, (2, 3, 4)),
    ],
    ids=["qfac 0", "qfac 2", "negative size", "size 0", "long quaternion"],
)
def test_headers_as_the_field_writes_them(fields: dict[str, object], spacing: tuple[int, ...]) -> None:
    import nibabel

    header = nibabel.Nifti1Image(np.ones((2, 2, 2), np.int16), np.diag([2.0, 3, 4, 1])).header
    header["sform_code"], header["qform_code"], header["vox_offset"], header["magic"] = 0, 1, 352, b"n+1"
    for name, value in fields.items():
        header[name] = [*value, *header[name][4:]] if name == "pixdim" else value  # type: ignore[misc]
    data = header.binaryblock + bytes(4) + np.ones(8, np.int16).tobytes()
    volume = nifti.parse(data)
    np.testing.assert_allclose(np.sqrt((volume.affine[:3, :3] ** 2).sum(axis=0)), spacing, rtol=1e-5)
    assert nifti.to_bytes(volume) == data


def test_names_in_capitals(tmp_path: Path) -> None:
    volume = nifti.from_array(np.ones((2, 2, 2), np.int16), np.eye(4))
    nifti.write(volume, tmp_path / "A.NII.GZ")
    assert gzip.decompress((tmp_path / "A.NII.GZ").read_bytes()) == nifti.to_bytes(volume)
    assert {"a/B.IMG", "a/B.Img.gz"} <= {*nifti.partners("a/B.hdr")}
    assert next(nifti.partners("a/B.Hdr")) == "a/B.Img"


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\n", b"/annex/objects/MD5E-s1.nii.gz\n",
        rb"..\.git\annex\objects\aa\MD5E-s1.nii.gz",
    ],
)  # fmt: skip
def test_pointers_are_told(content: bytes) -> None:
    with pytest.raises(BadInput, match="pointer") as caught:
        inflate.check_pointer(content, "P1_T1.nii.gz")
    assert "fetch" in caught.value.remedy


class TestItk:
    """NRRD and MetaImage by SimpleITK."""

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
    def test_grid_and_voxels(self, tmp_path: Path, suffix: str) -> None:
        import SimpleITK

        voxels = np.arange(24, dtype=np.int16).reshape(4, 3, 2)  # z, y, x
        image = SimpleITK.GetImageFromArray(voxels)
        image.SetSpacing((2.0, 3.0, 4.0))
        image.SetOrigin((10.0, 20.0, 30.0))
        path = tmp_path / f"x{suffix}"
        SimpleITK.WriteImage(image, str(path))
        volume = itk.parse(path.read_bytes(), path.name, 100)
        np.testing.assert_array_equal(volume.voxels, voxels.T)
        wanted = [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
        np.testing.assert_allclose(volume.affine, wanted)

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("x.mha", b"ElementSpacing = 1 1 1\nElementDataFile = /etc/passwd\n", Reason.UNSUPPORTED),
            ("x.nrrd", b"NRRD0004\nspace directions: none\ndata file: /etc/passwd\n\n", Reason.UNSUPPORTED),
            ("x.nrrd", b"NRRD0004\ntype: short\n\n", Reason.BAD_GEOMETRY),
            ("x.mnc", b"CDF\x01 nonsense", Reason.CORRUPT),
        ],
    )
    def test_what_cannot_be_used(self, name: str, content: bytes, reason: Reason) -> None:
        with pytest.raises(BadInput) as caught:
            itk.parse(content, name, 100)
        assert caught.value.reason == reason
