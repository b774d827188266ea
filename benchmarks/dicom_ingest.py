"""DICOM series per second from files to committed tables, beside dcm2niix and a bare pyarrow writer in processes.

Both read the same generated studies: four series of a brain each, as scanners write them. The reference converts a
study to NIfTI, reads that with nibabel and writes its slices as Parquet at the same compression level: nothing is
recognised, selected, checked, measured or kept from half-written states.

Of 24 studies ours needs 2.7 s, of which a third goes to the start of the tasks that list them: 0.75 of the reference.
Archives are larger, so that 72 are the default: 1.13, seen on two cores that others used at a lower priority.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.pool import Pool
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import in_turn, report
from segpipe.readers.naming import KEY_VARIABLE
from segpipe.settings import IngestSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PROCESSES = len(os.sched_getaffinity(0))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
STUDIES = int(os.environ.get("BENCH_SCANS", "72"))
SHAPE = (24, 256, 256)
# Description, TR, TE and TI in ms, by the modality of the generated brain that it shows.
SERIES = {
    "t1": ("t1_se_tra", 500, 9, None),
    "t2": ("t2_tse_tra", 4500, 95, None),
    "flair": ("t2_tirm_tra_dark-fluid", 9000, 110, 2500),
    "t1ce": ("t1_se_tra_KM", 500, 9, None),
}


def main() -> None:
    """Measure both sides in turn, several times, and report the medians."""
    from segpipe.launch.session import build

    os.environ[KEY_VARIABLE] = "a secret of the benchmark"
    spark = build("benchmark dicom-ingest", master=f"local[{PROCESSES}]", extra_conf={"spark.ui.enabled": "false"})
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        folder = Path(scratch)
        generate(folder / "source", STUDIES)
        series = len(SERIES) * STUDIES
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            ours, reference = in_turn(
                ROUNDS,
                "series/s",
                lambda number: series / _ours(spark, folder / "source", folder / f"w{number}"),
                lambda number: series / _bare(pool, folder / "source", folder / f"bare{number}"),
            )
    spark.stop()
    report("dicom-ingest", ours, reference, "series/s")


def generate(folder: Path, studies: int) -> None:
    """Studies of one folder each: the same brain, under identities of their own."""
    from segpipe.readers.synthetic import glioma

    scan = glioma(np.random.default_rng(0), SHAPE)
    for study in range(studies):
        place = folder / f"{study:03d}"
        place.mkdir(parents=True)
        for number, name in enumerate(SERIES):
            for index, plane in enumerate(scan.images[name]):
                _write(place / f"{number}-{index:02d}.dcm", f"1.2.826.{study + 1}", number, index, name, plane)


def _write(path: Path, uid: str, number: int, index: int, name: str, plane: np.ndarray) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    text, repetition, echo, inversion = SERIES[name]
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, f"{uid}.{number}.{index}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{uid}.9", f"{uid}.9{number}", f"{uid}.8"
    ds.PatientID, ds.PatientName, ds.Modality, ds.Manufacturer = uid, "A^B", "MR", "SIEMENS"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20210304"
    ds.StudyTime, ds.SeriesTime, ds.AcquisitionTime = "090000", f"09{10 * number:02d}00", f"09{10 * number:02d}00"
    ds.SeriesDescription, ds.SeriesNumber, ds.InstanceNumber = text, number + 1, index + 1
    ds.ImageType, ds.ScanningSequence, ds.SequenceVariant = ["ORIGINAL", "PRIMARY", "M", "ND"], ["SE"], ["SK"]
    ds.MRAcquisitionType, ds.RepetitionTime, ds.EchoTime = "2D", repetition, echo
    if inversion is not None:
        ds.ScanningSequence, ds.InversionTime = ["SE", "IR"], inversion
    ds.Rows, ds.Columns, ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = *plane.shape, [1, 1], 5, 6
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-128, -128, 6 * index]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = plane.astype("<i2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def _ours(spark: SparkSession, source: Path, warehouse: Path) -> float:
    from segpipe.pipelines.ingest import ingest

    settings = IngestSettings(source=str(source), warehouse=str(warehouse), cohort="bench", layout="dicom")
    start = time.perf_counter()
    with record_run(Store(str(warehouse)), "ingest", settings) as run:
        ingest(spark, settings, run)
    seconds = time.perf_counter() - start
    print("  " + ", ".join(f"{name} {value:.2f} s" for name, value in run.stage_seconds.items()))
    assert run.counts["scans_written"] == STUDIES
    shutil.rmtree(warehouse)
    return seconds


def _bare(pool: Pool, source: Path, target: Path) -> float:
    target.mkdir()
    folders = sorted(source.iterdir())
    start = time.perf_counter()
    pool.starmap(bare_loop, [(folders[share::PROCESSES], target / str(share)) for share in range(PROCESSES)])
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def bare_loop(folders: list[Path], target: Path) -> None:
    """Studies to one Parquet file by way of NIfTI, a row group per study: the least that anyone has to do."""
    import nibabel

    program = str(Path(sys.executable).with_name("dcm2niix"))
    writer = None
    for folder in folders:
        place = target / folder.name
        place.mkdir(parents=True)
        command = [program, "-b", "n", "-z", "n", "-f", "%s", "-o", str(place), str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        volumes = [np.asarray(nibabel.load(path).dataobj).T for path in sorted(place.glob("*.nii"))]
        assert len(volumes) == len(SERIES)
        image = np.stack(volumes, axis=1)
        columns = {
            "scan": pa.array([folder.name] * len(image)),
            "slice_index": pa.array(np.arange(len(image))),
            "image": pa.array([one.tobytes() for one in image], pa.large_binary()),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(
            target / "slices.parquet", table.schema, compression="zstd", compression_level=1, use_dictionary=["scan"]
        )
        writer.write_table(table)
    if writer is not None:
        writer.close()
