"""One hostile file costs one row, never the cohort, and little memory and time."""

import errno
import json
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from pydicom.uid import DeflatedExplicitVRLittleEndian

from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput, Reason, StorageError
from segpipe.pipelines import ingest_task
from segpipe.pipelines.ingest import IngestPlan, plan_ingest
from segpipe.pipelines.ingest_task import IngestJob, PartTask, write_part
from segpipe.readers import dicom, dicom_files, names, nifti
from segpipe.readers.archive import Archive
from segpipe.readers.naming import Naming, SubjectKey
from segpipe.readers.sources import find
from segpipe.settings import IngestSettings
from segpipe.storage.lock import lock
from segpipe.warehouse import slices
from segpipe.warehouse.store import Store
from tests.pipelines.examples import archive
from tests.readers.test_dicom import KEY, data_of, image


def write_all(source: Path, warehouse: Path) -> Store:
    """The tables of all scans in `source` as one part, without Spark."""
    settings = IngestSettings(source=str(source), warehouse=str(warehouse), cohort="c")
    listing = find(settings.source, subject_key=KEY)
    with lock(settings.warehouse, "slices-c", 0, "r1") as fence:
        job = IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), fence, Naming(SubjectKey(KEY)))
        write_part(PartTask("c.part", tuple(listing.scans)), job)
    return Store(settings.warehouse)


def reasons(warehouse: Store) -> list[str]:
    return warehouse.table("quarantine").to_table()["reason"].to_pylist() if warehouse.parts("quarantine") else []


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", "x" * 1000, "\u202e"])
def test_a_channel_of_a_dataset_json_that_is_no_name(tmp_path, name):
    for number in range(2):
        for channel in range(2):
            path = tmp_path / "imagesTr" / f"case{number}_{channel:04d}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)).to_filename(path)
    content = {"channel_names": {"0": "FLAIR", "1": name}, "labels": {"background": 0, "tumour": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    listing = find(str(tmp_path), "decathlon")
    assert not listing.scans
    assert [one.reason for one in listing.rejected] == [Reason.CORRUPT]
    listing.rejected[0].message.encode()


def test_a_dataset_json_that_cannot_be_read_stops_no_other(tmp_path, monkeypatch):
    for name in ("mine", "yours"):
        path = tmp_path / name / "imagesTr" / "case_0000.nii.gz"
        path.parent.mkdir(parents=True)
        nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)).to_filename(path)
        content = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "tumour": 1}}
        (tmp_path / name / "dataset.json").write_text(json.dumps(content))
    read = Archive.read

    def refused(archive: Archive, path: str) -> bytes:
        if path == "mine/dataset.json":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return read(archive, path)

    monkeypatch.setattr(Archive, "read", refused)
    listing = find(str(tmp_path))
    assert [scan.paths for scan in listing.scans] == [("yours/imagesTr/case_0000.nii.gz",)]
    (told,) = listing.rejected
    assert (told.reason, told.paths) == (Reason.UNREADABLE, ("mine/dataset.json", "mine/imagesTr/case_0000.nii.gz"))


def of_hdfs() -> StorageError:
    """What HDFS says of a file that another user keeps to himself."""
    error = StorageError("HDFS refused /a (AccessControlException: Permission denied)", "ask the owner")
    error.errno = errno.EACCES
    return error


@pytest.mark.parametrize("error", [PermissionError("s3: Forbidden"), of_hdfs()], ids=["s3", "hdfs"])
@pytest.mark.parametrize("role", ["t1ce", "seg"])
def test_a_file_that_may_not_be_read_costs_itself_alone_until_it_may(tmp_path, monkeypatch, error, role):
    source = archive(tmp_path / "source", subjects=2)
    (closed,) = source.glob(f"*_000/*_{role}.nii.gz")
    cat_file = LocalFileSystem.cat_file

    def refused(fs: LocalFileSystem, path: str, *place: int) -> bytes:
        if path == str(closed):
            raise error
        return cat_file(fs, path, *place)

    monkeypatch.setattr(LocalFileSystem, "cat_file", refused)
    warehouse = write_all(source, tmp_path / "w")
    rows = warehouse.table("scans").to_table(["scan_id", "files"]).to_pylist()
    roles = {row["scan_id"]: [file["role"] for file in row["files"]] for row in rows}
    whole = ["FLAIR", "T1", "T1ce", "T2", "mask"]
    lost = "mask" if role == "seg" else "T1ce"
    first, second = sorted(roles)
    assert roles == {first: [one for one in whole if one != lost], second: whole}
    (row,) = warehouse.table("quarantine").to_table().to_pylist()
    assert (row["reason"], row["paths"]) == ("unreadable", [str(closed.relative_to(source))])
    again = planned(source, warehouse)
    assert (again.skipped, again.known_bad, again.changed) == (2, 1, ())
    monkeypatch.undo()
    again = planned(source, warehouse)
    assert (again.skipped, again.changed) == (1, (first,))


def planned(source: Path, warehouse: Store) -> IngestPlan:
    """What the next run would do."""
    settings = IngestSettings(source=str(source), warehouse=warehouse.url, cohort="c")
    with lock(settings.warehouse, "slices-c", 0, "r2") as fence:
        job = IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), fence, Naming(SubjectKey(KEY)))
        return plan_ingest(warehouse, job, find(settings.source, subject_key=KEY), warehouse.index("c"), 2)


@pytest.mark.parametrize("when", ["before its row", "while it is written"])
def test_a_scan_that_fails_anywhere_costs_a_row_and_leaves_no_slice(tmp_path, monkeypatch, when):
    source = archive(tmp_path / "source", subjects=3)
    subject = sorted(path.name for path in source.iterdir())[1]
    row_of, groups_of = ingest_task.scan_row, slices.row_groups

    def row(scan, job):
        return row_of(scan, job) | ({"session": "\ud800"} if scan.source.subject == subject else {})

    def groups(identity, *arguments):
        for number, batch in enumerate(groups_of(identity, *arguments)):
            yield batch
            if identity["subject"] == subject:
                raise OverflowError(number)

    if when == "before its row":
        monkeypatch.setattr(ingest_task, "scan_row", row)
    else:
        monkeypatch.setattr(slices, "row_groups", groups)
    warehouse = write_all(source, tmp_path / "w")
    assert warehouse.scans("c").num_rows == 2
    assert set(warehouse.table("slices").to_table(["subject"])["subject"].to_pylist()) == set(
        warehouse.scans("c")["subject"].to_pylist()
    )
    assert reasons(warehouse) == ["crashed"]


def test_slices_that_no_cell_can_hold_are_refused_before_they_are_copied(tmp_path, monkeypatch):
    huge = np.broadcast_to(np.zeros(1, np.int16), (1, 40_000, 30_000))
    identity = {"scan_id": "c:s:1", "cohort": "c", "subject": "s", "split": "train"}
    with pytest.raises(ValueError, match="takes 2400000000 bytes"):
        next(slices.row_groups(identity, [huge], None, huge, 16_000_000))
    monkeypatch.setattr(slices, "MOST_SLICE_BYTES", 1000)
    warehouse = write_all(archive(tmp_path / "source", subjects=2), tmp_path / "w")
    assert reasons(warehouse) == ["too_large"] * 2


def test_extensions_are_bounded(monkeypatch):
    header = nib.Nifti1Header()
    header.set_data_shape((2, 2, 2))
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+1", 352 + 5000
    content = header.binaryblock + b"\1\0\0\0" + struct.pack("<ii", 5000, 6) + b"x" * 4992 + bytes(8)
    assert nifti.parse(content).voxels.size == 8
    monkeypatch.setattr(nifti, "MOST_TEXT_BYTES", 4000)
    with pytest.raises(BadInput, match="no voxels") as caught:
        nifti.parse(content)
    assert caught.value.reason == Reason.TOO_LARGE


@pytest.mark.parametrize("padding", [0, 100, 20_000])
def test_a_deflate_bomb_behind_a_padded_header_is_not_inflated(tmp_path, padding):
    """As large a header as one likes may stand before the syntax: here the version of the meta information."""
    bomb = deflated(100_000_000, padding)
    tracemalloc.start()
    with pytest.raises(BadInput, match="deflated") as caught:
        dicom.series([bomb], ["a"], 1 << 20)
    (tmp_path / "bomb.dcm").write_bytes(bomb)
    listing = find(str(tmp_path), subject_key=KEY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason == Reason.UNSUPPORTED
    assert not listing.scans
    assert peak < 10_000_000


def deflated(size: int, padding: int) -> bytes:
    plain = data_of(image(), DeflatedExplicitVRLittleEndian)
    place = plain.index(b"\x02\x00\x01\x00OB")
    version = b"\x02\x00\x01\x00OB\0\0" + struct.pack("<I", padding + 2) + bytes(padding + 2)
    rest = plain[place + 14 :]
    syntax = rest.index(DeflatedExplicitVRLittleEndian.encode())
    end = syntax + len(DeflatedExplicitVRLittleEndian) + len(DeflatedExplicitVRLittleEndian) % 2
    packer = zlib.compressobj(wbits=-15)
    element = b"\x08\x00\x05\x00UT\0\0" + struct.pack("<I", size)
    bomb = packer.compress(element + bytes(size)) + packer.flush()
    return plain[:place] + version + rest[:end] + bomb


def test_millions_of_frames_are_refused_before_anything_is_made_of_them():
    many = data_of(image(Rows=1, Columns=1, NumberOfFrames=2_000_000, PixelData=bytes(4_000_000)))
    with pytest.raises(BadInput, match="2000000 frames") as caught:
        dicom.series([many], ["a"], 1 << 30)
    assert caught.value.reason == Reason.TOO_LARGE
    items = data_of(image()) + b"\xfe\xff\x00\xe0\0\0\0\0" * (dicom_files._MOST_ITEMS + 1)
    start = time.process_time()
    with pytest.raises(BadInput, match="items in its sequences"):
        dicom.series([items], ["a"], 1 << 30)
    assert time.process_time() - start < 2


PIECES = ("1_", "-", " ", "t1_", "ses-1", "lesion", "20200101")


@pytest.mark.parametrize("piece", ["a_", *(pytest.param(piece, marks=pytest.mark.slow) for piece in PIECES)])
def test_names_of_any_length_take_linear_time(piece):
    for read in (names.describe, names.folder, names.cut, names.modality):
        start = time.process_time()
        read(piece * (100_000 // len(piece)) + "!")
        assert time.process_time() - start < 8, read
