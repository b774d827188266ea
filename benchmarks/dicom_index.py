"""Headers a second of the index of a DICOM archive in Spark tasks, beside bare pydicom with the same tags in as many
processes; then a second run with nothing new, and what the driver needs for ten times as many files.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import report
from segpipe.pipelines.index import IndexJob, dicom_listing, gather
from segpipe.readers.dicom_tags import TAGS
from segpipe.readers.series import Options

INSTANCES = int(os.environ.get("BENCH_INSTANCES", "20000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SLICES = 200
_SECRET = b"a secret of the benchmark"
_UID = "1.2.826.0.1.3680043.8.498.1{:011d}.1{:06d}"


def main() -> None:
    """Index generated archives, each file a header as scanners write it and 64 pixels."""
    from segpipe.launch.session import build

    cores = len(os.sched_getaffinity(0))
    spark = build("benchmark dicom-index", master=f"local[{cores}]", extra_conf={"spark.ui.enabled": "false"})
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        source = Path(scratch) / "few"
        generate(source, INSTANCES)

        def ours(name: str, source: Path = source, count: int = INSTANCES) -> float:
            job = IndexJob(str(source), f"{scratch}/{name}", "bench", _SECRET, {})
            start = time.perf_counter()
            found = dicom_listing(job, gather(spark, job, "bench"), Options())
            seconds = time.perf_counter() - start
            assert len(found.series) == -(-count // SLICES)
            return seconds

        ours("warm-up")
        with ProcessPoolExecutor(cores) as pool:
            pairs = [(ours(f"w{n}"), _timed(lambda: _with_pydicom(pool, source, cores))) for n in range(ROUNDS)]
        first, reference = (statistics.median(side) for side in zip(*pairs, strict=True))
        again = statistics.median(ours(f"w{n}") for n in range(ROUNDS))
        print(
            f"second run with nothing new: {again:.2f} s, {first / again:.1f} times faster than the first", flush=True
        )
        few = _resident_mb()
        generate(Path(scratch) / "many", 10 * INSTANCES)
        seconds, later = (ours("many", Path(scratch) / "many", 10 * INSTANCES) for _ in range(2))
        print(f"{10 * INSTANCES} files: {seconds:.1f} s, again {later:.2f} s, {seconds / later:.1f} times faster")
        many = _resident_mb()
        print(f"driver: {few:.0f} MB for {INSTANCES} files, {many:.0f} MB for {10 * INSTANCES}")
        report("dicom-index", INSTANCES / first, INSTANCES / reference, "headers/s")
    spark.stop()


def generate(folder: Path, count: int) -> None:
    """Files in folders of one series each, as `instances` has them."""
    for path, content in instances(count):
        place = folder / path
        if path.endswith("/0000.dcm"):
            place.parent.mkdir(parents=True)
        place.write_bytes(content)


def instances(count: int) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of files of `SLICES` a series, by filling numbers into one template."""
    template = _template()
    for series in range(-(-count // SLICES)):
        for number in range(min(SLICES, count - series * SLICES)):
            content = template.replace(_UID.format(0, 0).encode(), _UID.format(series, number).encode())
            content = content.replace(_UID.format(0, 999999).encode(), _UID.format(series, 999999).encode())
            content = content.replace(_UID.format(0, 888888).encode(), _UID.format(series // 10, 888888).encode())
            yield (
                f"{series % 97:02d}/{series:06d}/{number:04d}.dcm",
                content.replace(b"0000.0", f"{number:04d}.0".encode()),
            )


def _template() -> bytes:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, _UID.format(0, 0)
    ds.SeriesInstanceUID, ds.StudyInstanceUID = _UID.format(0, 999999), _UID.format(0, 888888)
    ds.PatientID, ds.PatientName, ds.Modality, ds.Manufacturer = _UID.format(0, 888888), "A^B", "MR", "SIEMENS"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20210304"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = "101112.130000"
    ds.ImageType, ds.SeriesDescription, ds.ProtocolName = ["ORIGINAL", "PRIMARY", "M", "ND"], "t1_se_tra", "t1_se_tra"
    ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType = "SE", "SK", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.SeriesNumber, ds.InstanceNumber = 500, 9, 90, 3, 1
    ds.ReferencedImageSequence = [Dataset() for _ in range(3)]
    for item in ds.ReferencedImageSequence:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, "1.2.3.4.5"
    block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    for number in range(8, 24):
        block.add_new(number, "LO", f"private {number}")
    ds.ImagePositionPatient, ds.ImageOrientationPatient = ["-100.0", "-120.0", "0000.0"], [1, 0, 0, 0, 1, 0]
    ds.Rows, ds.Columns, ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = 8, 8, [1, 1], 1, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelData = 1, "MONOCHROME2", bytes(128)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = MRImageStorage, _UID.format(0, 0)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def _with_pydicom(pool: ProcessPoolExecutor, source: Path, cores: int) -> None:
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names]
    shares = [paths[share :: 4 * cores] for share in range(4 * cores)]
    assert sum(pool.map(_read, shares)) == len(paths)


def _read(paths: list[str]) -> int:
    import pydicom

    tags: list[Any] = list(TAGS.values())
    return sum("Rows" in pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags) for path in paths)


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _resident_mb() -> float:
    """The largest resident size that this process, the driver's Python, has had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000
