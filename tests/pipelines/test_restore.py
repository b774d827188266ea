"""Every NIfTI file comes back from the tables byte for byte, or, by default, without its free text."""

import csv
import gzip
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from segpipe.core.splits import SplitRule
from segpipe.errors import NotFound, TableError
from segpipe.pipelines.ingest import ingest
from segpipe.pipelines.ingest_task import IngestJob, PartTask, write_part
from segpipe.pipelines.restore import restore
from segpipe.readers import sources
from segpipe.settings import IngestSettings, RestoreSettings
from segpipe.storage.lock import lock
from segpipe.warehouse import checked
from segpipe.warehouse.parts import STAMP, open_writer
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS
from tests.readers.test_nifti import files, real_images


def plain_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def ingest_all(spark, source: Path, warehouse: Path, **settings) -> Store:
    """Every byte of the files is kept unless `settings` say otherwise."""
    kept = {"keep_header_text": True} | settings
    chosen = IngestSettings(source=str(source), warehouse=str(warehouse), cohort="c", **kept)
    with record_run(Store(chosen.warehouse), "ingest", chosen) as run:
        ingest(spark, chosen, run)
    return Store(str(warehouse))


def restore_all(warehouse: Store, output: Path) -> list[Path]:
    ids = warehouse.scans("c", ["scan_id"])["scan_id"].to_pylist()
    return [Path(p) for one in ids for p in restore(RestoreSettings(warehouse.url, one, str(output)))]


def assert_same_files(source: Path, output: Path, restored: list[Path]) -> None:
    expected = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    found = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert found == expected
    assert {path.relative_to(output) for path in restored} <= set(expected)
    for path in expected:
        assert plain_bytes(output / path) == plain_bytes(source / path), path


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_generated_scans_come_back(spark, glioma_archive, tmp_path, axis):
    warehouse = ingest_all(spark, glioma_archive, tmp_path / "w", axis=axis)
    assert_same_files(glioma_archive, tmp_path / "out", restore_all(warehouse, tmp_path / "out"))


def test_real_gliomas_come_back(spark, real_gliomas, tmp_path):
    warehouse = ingest_all(spark, real_gliomas, tmp_path / "w")
    assert_same_files(real_gliomas, tmp_path / "out", restore_all(warehouse, tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.long
def test_all_other_real_images_come_back(spark, real_data, real_gliomas, tmp_path):
    """Pairs, 4D and 5D, both orders, extensions, scaled, odd axes: each file a subject of its own."""
    gliomas = {path.name for path in real_gliomas.iterdir()}
    source = tmp_path / "source"
    rows = []
    for number, path in enumerate(one for one in real_images(real_data) if not gliomas & {*one.parts}):
        folder = source / f"s{number:02d}"
        folder.mkdir(parents=True)
        for half in {path, path.with_name(path.name.replace(".hdr", ".img"))}:
            shutil.copyfile(half, folder / half.name)
        rows.append((folder.name, "FLAIR", f"{folder.name}/{path.name}"))
    table = source / "files.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("subject", "modality", "path"), *rows])
    warehouse = ingest_all(spark, table, tmp_path / "w")
    ((empty,),) = warehouse.table("quarantine").to_table()["paths"].to_pylist()
    assert empty.endswith("5D_zeros.nii.gz")
    (source / empty).unlink()
    assert len(rows) > 30
    table.unlink()
    (source / empty).parent.rmdir()
    assert_same_files(source, tmp_path / "out", restore_all(warehouse, tmp_path / "out"))


@pytest.mark.slow
def test_generated_files_come_back():
    """All containers, orders, types, scalings, orientations and extensions; refused is only what shows no brain."""
    fates: Counter[str] = Counter()

    @given(files())
    @hypothesis_settings(max_examples=80)
    def check(file: tuple[str, bytes, bytes | None, np.ndarray]) -> None:
        container, data, image, _ = file
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "source").mkdir()
            suffix = ".hdr" if container.endswith("-pair") else ".nii"
            (folder / "source" / f"s1_flair{suffix}").write_bytes(data)
            if image is not None:
                (folder / "source" / "s1_flair.img").write_bytes(image)
            warehouse = write_alone(folder / "source", folder / "w")
            rejected = warehouse.table("quarantine").to_table().to_pylist() if warehouse.parts("quarantine") else []
            fates.update([row["reason"] for row in rejected] or ["written"])
            if not rejected:
                assert_same_files(folder / "source", folder / "out", restore_all(warehouse, folder / "out"))

    check()
    assert set(fates) <= {"written", "no_brain", "not_finite", "unsupported"}
    assert fates["written"] > sum(fates.values()) / 4


def write_alone(source: Path, warehouse: Path, keep_header_text: bool = True) -> Store:
    """The tables of the one scan in `source`, written as a Spark task does but without Spark."""
    settings = IngestSettings(str(source), str(warehouse), "c", keep_header_text=keep_header_text)
    (scan,) = sources.find(settings.source).scans
    with lock(settings.warehouse, "slices-c", 0, "r1") as fence:
        write_part(PartTask("c.part", (scan,)), IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), fence))
    return Store(settings.warehouse)


TYPES = ["u1", "i1", "<i2", ">i2", "<u2", "<i4", ">i4", "<f4", ">f4", "<f8", ">f8"]
ORIENTATIONS = ["RAS", "LPS", "PIR", "ASL", "SRA"]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=["nifti1", "nifti2"])
def test_all_types_orders_and_orientations_come_back(spark, tmp_path, kind):
    source = tmp_path / "source"
    rng = np.random.default_rng(4)
    for number, dtype in enumerate(TYPES):
        codes = ORIENTATIONS[number % len(ORIENTATIONS)]
        write_image(source / f"s{number:02d}" / f"s{number:02d}_flair.nii.gz", kind, np.dtype(dtype), codes, rng)
    warehouse = ingest_all(spark, source, tmp_path / "w")
    assert warehouse.scans("c").num_rows == len(TYPES)
    assert_same_files(source, tmp_path / "out", restore_all(warehouse, tmp_path / "out"))


def write_image(path: Path, kind, dtype: np.dtype, codes: str, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True)
    shape = (7, 5, 6)
    voxels = np.zeros(shape, dtype)
    voxels[1:-1, 1:-1, 1:-1] = rng.integers(1, 100, (5, 3, 4)).astype(dtype)
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(codes), nib.orientations.axcodes2ornt("RAS")),
        shape,
    )
    header = kind.header_class(endianness=">" if dtype.byteorder == ">" else "<")
    header.set_data_dtype(dtype)
    image = kind(voxels, affine, header)
    image.header["descrip"] = b"a header field"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"an extension"))
    image.to_filename(path)


def test_a_scan_that_is_not_there_is_named(spark, glioma_archive, tmp_path):
    warehouse = ingest_all(spark, glioma_archive, tmp_path / "w")
    with pytest.raises(NotFound, match="c:nobody:1"):
        restore(RestoreSettings(warehouse.url, "c:nobody:1", str(tmp_path / "out")))


SECRET = b"JANE ROE, acquired by mueller@ws17"


def text_of(container: str, folder: Path) -> Path:
    """A small image of a kind with a secret in every place that takes text."""
    rng = np.random.default_rng(3)
    voxels = np.zeros((7, 5, 6), np.int16)
    voxels[1:-1, 1:-1, 1:-1] = rng.integers(1, 100, (5, 3, 4))
    affine = np.array([[-2.0, 0.1, 0, 9], [0, 1.5, 0, -7], [0, 0.2, 3.0, 5], [0, 0, 0, 1]])
    folder.mkdir()
    if container == "mgh":
        path = folder / "s1_flair.mgh"
        nib.MGHImage(voxels, affine).to_filename(path)
        path.write_bytes(path.read_bytes()[: 284 + voxels.nbytes] + bytes(20) + b"\0\0\0\3" + SECRET)
        return path
    kinds = {"nifti1": nib.Nifti1Image, "nifti2": nib.Nifti2Image, "pair": nib.Nifti1Pair}
    image = (kinds | {"analyze": nib.Spm2AnalyzeImage})[container](voxels, affine)
    for name, (field, *_) in image.header.template_dtype.fields.items():
        if field.kind == "S" and field.itemsize > 4:
            image.header[name] = SECRET[: field.itemsize]
    if container in ("nifti1", "nifti2"):
        image.header.set_slope_inter(0.5, 3)
        for code in ("comment", "afni"):
            image.header.extensions.append(nib.nifti1.Nifti1Extension(code, SECRET * 3))
    path = folder / ("s1_flair.hdr" if container in ("pair", "analyze") else "s1_flair.nii")
    image.to_filename(path)
    path.with_suffix(".mat").unlink(missing_ok=True)  # nibabel's side file of Analyze
    return path


@pytest.mark.parametrize("container", ["nifti1", "nifti2", "pair", "analyze", "mgh"])
def test_free_text_is_not_kept_unless_asked_and_all_else_is_exact(tmp_path, container):
    path = text_of(container, tmp_path / "source")
    assert SECRET[:8] in path.read_bytes()
    warehouse = write_alone(path.parent, tmp_path / "w", keep_header_text=False)
    cells = json.dumps(warehouse.table("scans").to_table().to_pylist(), default=lambda one: one.decode("latin-1"))
    told: list[str] = []
    scan_id = warehouse.scans("c", ["scan_id"])["scan_id"][0].as_py()
    (out,) = restore(RestoreSettings(warehouse.url, scan_id, str(tmp_path / "out")), told.append)
    for content in (cells.encode(), Path(out).read_bytes()):
        assert b"JANE" not in content
        assert b"mueller" not in content
    assert any("is the source except for free text that was not kept" in line for line in told)
    one, other = nib.load(path), nib.load(out)
    assert np.array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    assert np.array_equal(one.affine, other.affine)
    assert one.get_data_dtype() == other.get_data_dtype()
    assert Path(out).stat().st_size == path.stat().st_size
    if container != "mgh":
        for name, (field, *_) in one.header.template_dtype.fields.items():
            same = np.array_equal(one.header[name], other.header[name], equal_nan=field.kind == "f")
            assert same or field.kind == "S", name
    kept = write_alone(path.parent, tmp_path / "w2")
    (out,) = restore(RestoreSettings(kept.url, scan_id, str(tmp_path / "out2")), told.append)
    assert Path(out).read_bytes() == path.read_bytes()
    assert told[-1].endswith("is the source byte for byte (SHA-256)")


def test_a_restored_file_that_is_not_the_ingested_one_is_an_error(tmp_path):
    """The checksum in `scans` says otherwise, as after a fault of the codec or in memory."""
    path = text_of("nifti1", tmp_path / "source")
    warehouse = write_alone(path.parent, tmp_path / "w")
    part = Path(warehouse.path("scans", f"{warehouse.parts('scans')[0]}.parquet"))
    rows = warehouse.table("scans").to_table()
    stamp = checked.read_metadata(warehouse.fs, str(part)).metadata[STAMP]
    (row,) = rows.to_pylist()
    for change, said in (({"voxels_crc32": 1}, "its voxels"), ({"sha256": "0" * 64}, "its SHA-256")):
        changed = row | {"files": [row["files"][0] | change]}
        with part.open("wb") as file, open_writer(file, SCANS, {STAMP: stamp}) as writer:
            writer.write_table(pa.Table.from_pylist([changed], SCANS.schema))
        with pytest.raises(TableError, match=said):
            restore(RestoreSettings(warehouse.url, row["scan_id"], str(tmp_path / "out")))
    assert not (tmp_path / "out" / path.name).exists()
