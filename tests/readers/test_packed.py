"""Zip and tar archives of DICOM files, read where they lie."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import BadInput
from segpipe.pipelines.attempts import Watch
from segpipe.pipelines.index import Indexed, IndexJob, among, index_bucket, looks_like_dicom, plan
from segpipe.readers import packed
from segpipe.readers.archive import Listing
from segpipe.readers.dicom_index import merged
from segpipe.readers.locate import locate
from segpipe.readers.naming import SubjectKey
from segpipe.readers.scan import load
from segpipe.readers.sources import find
from segpipe.storage import url_to_fs
from segpipe.warehouse.store import Store
from tests.readers.hospital import MODALITIES, studies, write

KEY = b"a secret of more than sixteen bytes"
KINDS = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a quarter of its protocol, and two files that are no DICOM."""
    folder = tmp_path_factory.mktemp("plain")
    study = studies()[0]
    write(folder / "Doe_Jane", study.only("t1 ax", "t2 ax", "flair", "t1ce ax", "localizer"))
    (folder / "Doe_Jane" / "notes.txt").write_text("no image")
    (folder / "Doe_Jane" / "LIESMICH").write_text("no image")
    return folder


def pack(source: Path, target: Path) -> Path:
    """All files below a folder in one archive."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, str(path.relative_to(source)))
        return target
    mode = {".tar": "w", ".bz2": "w:bz2"}.get(target.suffix, "w:gz")
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for path in files:
            archive.add(path, str(path.relative_to(source)))
    return target


def values(listing: Listing) -> dict[str, int]:
    scan = load(listing.root, listing.scans[0])
    return {name: int(np.max(array)) for name, array in scan.images.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_study_is_the_scan_that_it_is_unpacked(plain: Path, tmp_path: Path, kind: str) -> None:
    pack(plain, tmp_path / "in" / f"export{kind}")
    ours, theirs = find(str(tmp_path / "in"), "auto", KEY), find(str(plain), "auto", KEY)
    assert values(ours) == values(theirs)
    assert set(values(ours)) == set(MODALITIES)
    assert [one.facts for one in (o.series for o in ours.series)] == [
        one.facts for one in (o.series for o in theirs.series)
    ]
    assert ours.kinds == theirs.kinds == {".txt": 1, "no suffix": 1}
    assert ours.rejected == []
    assert sorted(path.partition("!/")[2] for path in ours.scans[0].paths) == sorted(theirs.scans[0].paths)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_tasks_look_into_archives_and_know_them_again(plain: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    pack(plain, source / f"export{kind}")
    (source / "other.zip").write_bytes(pack(plain / "Doe_Jane" / "..", tmp_path / "x.zip").read_bytes()[:900])
    with zipfile.ZipFile(source / "papers.zip", "w") as papers:
        papers.writestr("a.pdf", b"paper")
    assert looks_like_dicom(*url_to_fs(str(source)))
    job = IndexJob(str(source), str(tmp_path / "w"), "c", KEY, {})
    watch = Watch(Store(job.warehouse), "r1", takes_notes=False)
    first, again = (index_bucket(job, 0, plan(*url_to_fs(str(source))), watch) for _ in range(2))
    wanted = find(str(source), "dicom", KEY)
    assert {one.facts.series: one.entries() for one in merged(first.series)} == {
        one.facts.series: one.series.entries() for one in wanted.series
    }
    assert (first.opened > 0, again.opened) == (True, 0)
    for found in (first, again):
        assert [(one.paths, str(one.reason)) for one in found.rejected] == [(("other.zip",), "corrupt")]
        assert [(one.paths, str(one.reason)) for one in found.others] == [(("papers.zip",), "unsupported")]
        assert found.kinds == wanted.kinds == {".txt": 1, "no suffix": 1}
    assert [one.paths for one in wanted.rejected] == [("other.zip",), ("papers.zip",)]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "w").rglob("*.parquet"))
    assert kept
    assert b"Doe" not in kept
    assert b"export" not in kept


def test_a_keyed_path_of_a_member_is_found_again(plain: Path, tmp_path: Path) -> None:
    pack(plain, tmp_path / "in" / "a.zip")
    key = SubjectKey(KEY)
    path = find(str(tmp_path / "in"), "auto", KEY).scans[0].paths[0]
    assert locate(str(tmp_path / "in"), key.path(path), key) == [path]
    assert path.startswith("a.zip!/Doe_Jane/")


def damaged(path: Path, fault: str) -> bytes:
    """The archive without its second half, or with some bytes in the middle turned; of a tar, those of a header."""
    content = path.read_bytes()
    middle = len(content) // 2
    if fault == "cut":
        return content[:middle]
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            middle = archive.getmembers()[7].offset
    return content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["cut", "turned"])
def test_a_damaged_archive_is_told(plain: Path, tmp_path: Path, kind: str, fault: str) -> None:
    path = pack(plain, tmp_path / "in" / f"Doe{kind}")
    path.write_bytes(damaged(path, fault))
    listing = find(str(tmp_path / "in"), "auto", KEY)
    assert listing.rejected
    assert all(one.is_dicom for one in listing.rejected)
    if (fault, kind) != ("turned", ".zip"):  # where one file is damaged, and is told alone
        assert [one.paths for one in listing.rejected] == [(f"Doe{kind}",)]
        assert listing.scans == []


def test_a_tar_that_ends_between_two_files_is_damaged(plain: Path, tmp_path: Path) -> None:
    path = pack(plain, tmp_path / "in" / "a.tar")
    with tarfile.open(path) as archive:
        end = archive.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:end])
    (told,) = find(str(tmp_path / "in"), "auto", KEY).rejected
    assert "ends before its last file does" in told.message


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_LEAST_BOUND", 1 << 20)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"IM{number}")
            info.size = 1 << 23
            archive.addfile(info, io.BytesIO(bytes(1 << 23)))
    monkeypatch.setattr(packed, "_MOST_MEMBERS", 3)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as many:
        for number in range(4):
            many.writestr(str(number), b"")
    fs, root = url_to_fs(str(tmp_path))
    for name in ("a.tar.gz", "b.zip"):
        with pytest.raises(BadInput, match=r"unpacks to more|holds more than 3 files"):
            packed.opened(fs, root, name).members()


def test_members_that_cannot_be_read_are_told(tmp_path: Path, plain: Path) -> None:
    image = next(path for path in sorted((plain / "Doe_Jane").iterdir()) if path.name.isdigit()).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../IM0", image)
        archive.writestr("good/IM1", image)
        archive.writestr("good/t1.nii.gz", b"?")
        archive.writestr("good/inner.zip", b"?")
        archive.writestr("__MACOSX/._IM1", image)
        archive.writestr("twice", image)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice", image)
    listing = find(str(tmp_path), "auto", KEY)
    assert sorted((one.paths[0], str(one.reason)) for one in listing.rejected) == [
        ("a.zip!/../IM0", "unsafe_path"),
        ("a.zip!/good/inner.zip", "unsupported"),
        ("a.zip!/good/t1.nii.gz", "unsupported"),
        ("a.zip!/twice", "duplicate"),
        ("a.zip!/twice", "unsupported"),
    ]
    assert all(one.is_dicom for one in listing.rejected)


def test_an_encrypted_archive_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("IM", b"x")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    (told,) = find(str(tmp_path), "auto", KEY).rejected
    assert "encrypted" in told.message


def test_a_plain_path_that_looks_like_a_member_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip!").mkdir()
    (tmp_path / "a.zip!" / "t1.nii.gz").write_bytes(b"?")
    (told,) = find(str(tmp_path)).rejected
    assert str(told.reason) == "unsafe_path"


def test_a_zip_without_its_first_bytes_keeps_what_is_left(plain: Path, tmp_path: Path) -> None:
    path = pack(plain, tmp_path / "in" / "a.zip")
    path.write_bytes(path.read_bytes()[1000:])
    fs, root = url_to_fs(str(tmp_path / "in"))
    archive = packed.opened(fs, root, "a.zip")
    first, *others = archive.members()
    with pytest.raises(BadInput, match="lies in a part that is lost"):
        archive.open(first.name)
    assert archive.read(others[-1].name)
    listing = find(str(tmp_path / "in"), "auto", KEY)
    assert listing.scans
    assert {str(one.reason) for one in listing.rejected} == {"corrupt"}
    looks_like_dicom(fs, root)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("IM1", bytes(1 << 20))
    (told,) = find(str(tmp_path), "auto", KEY).rejected
    assert str(told.reason) == "unsupported"
    assert "deflate" in told.remedy


def test_a_member_that_holds_more_than_it_declares_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("IM1", bytes(64 << 20))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    place = content.rfind(b"PK\x01\x02") + 24
    content[place : place + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    fs, root = url_to_fs(str(tmp_path))
    tracemalloc.start()
    with pytest.raises(BadInput, match="damaged"):
        packed.opened(fs, root, "a.zip").read("IM1")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("is_first", [True, False])
def test_long_headers_of_a_tar_are_refused(tmp_path: Path, kind: bytes, is_first: bool) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 8 << 20
    with gzip.open(tmp_path / "a.tgz", "wb", 1) as archive:
        if not is_first:
            archive.write(tarfile.TarInfo("a").tobuf())
        archive.write(header.tobuf() + b"1" * header.size + bytes(1024))
    (told,) = find(str(tmp_path), "auto", KEY).rejected
    assert str(told.reason) == "too_large"


def test_long_names_and_sparse_members_of_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("long/" * 100 + "IM1"))
        info = tarfile.TarInfo("GNUSparseFile.0/IM2")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "IM2"}
        info.pax_headers["GNU.sparse.realsize"] = str(1 << 30)
        info.size = tarfile.BLOCKSIZE
        archive.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(tarfile.BLOCKSIZE, b"\0")))
    fs, root = url_to_fs(str(tmp_path))
    archive = packed.opened(fs, root, "a.tar")
    assert [one.name for one in archive.members()] == ["long/" * 100 + "IM1"]
    assert archive.special == ["IM2"]


def test_members_are_found_again_where_other_layouts_were_asked_first(plain: Path, tmp_path: Path) -> None:
    pack(plain, tmp_path / "in" / "a.zip")
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "a") as archive:
        archive.writestr("t1.nii.gz", b"?")
    (tmp_path / "in" / "P1_T1.nii.gz").write_bytes(b"?")
    job = IndexJob(str(tmp_path / "in"), str(tmp_path / "warehouse"), "c", KEY, {})
    found = Indexed()
    for number, unit in enumerate(plan(*url_to_fs(job.source))):
        found.add(index_bucket(job, number, [unit], Watch(Store(job.warehouse), "r1", takes_notes=False)))
    found.series = merged(found.series)
    tasks = find(job.source, "auto", KEY, read_dicom=lambda _, entries, *__: among(found, entries))
    driver = find(job.source, "auto", KEY)
    assert [scan.paths for scan in tasks.scans] == [scan.paths for scan in driver.scans]
    assert len(tasks.scans) == 2
    assert [one.paths for one in tasks.rejected] == [one.paths for one in driver.rejected] == [("a.zip!/t1.nii.gz",)]


@pytest.mark.parametrize("most", [1 << 20, 1 << 21])
def test_long_headers_of_many_members_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(packed, "_MOST_MORE", most)
    content = (b"32 comment=" + b"x" * 20 + b"\n") * 500
    extra, member = tarfile.TarInfo("x"), tarfile.TarInfo("a.txt")
    extra.type, extra.size = b"x", len(content)
    padded = content.ljust(-(-len(content) // 512) * 512, b"\0")
    one = extra.tobuf(tarfile.PAX_FORMAT) + padded + member.tobuf(tarfile.PAX_FORMAT)
    with gzip.open(tmp_path / "a.tgz", "wb", 1) as archive:
        archive.write(one * 100 + bytes(1024))  # 1.5 MB beyond plain headers
    fs, root = url_to_fs(str(tmp_path))
    if most > 100 * len(one):
        assert [each.name for each in packed.opened(fs, root, "a.tgz").members()] == ["a.txt"]
        return
    with pytest.raises(BadInput) as raised:
        packed.opened(fs, root, "a.tgz").members()
    assert raised.value.reason == "too_large"
    assert "long headers" in raised.value.problem


def test_numbers_without_end_in_a_header_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = b"x", 16000
    (tmp_path / "a.tar").write_bytes(header.tobuf() + b"1" * 16384 + bytes(1024))
    (told,) = find(str(tmp_path), "auto", KEY).rejected
    assert str(told.reason) == "corrupt"
