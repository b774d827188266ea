"""A cohort of many scans in many parts, as jobs write it but for what the scans show."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from segpipe.core.splits import SplitRule
from segpipe.pipelines.ingest_task import IngestJob
from segpipe.readers.archive import ScanSource, SourceFile
from segpipe.settings import IngestSettings
from segpipe.storage.lock import Fence
from segpipe.warehouse import slices
from segpipe.warehouse.parts import STAMP, open_writer
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, SEGMENTATIONS, SLICES, Table

COHORT = "made"
MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
REGIONS = ("whole_tumour", "tumour_core", "enhancing_tumour")
MODEL = "0123456789abcdef"
_SHAPE = (1, 2, 2)


def job_of(warehouse: Store) -> IngestJob:
    """The ingest that would have written the cohort."""
    settings = IngestSettings(source="archive", warehouse=warehouse.url, cohort=COHORT)
    rule = SplitRule(settings.split_salt, settings.train_fraction, settings.validation_fraction)
    return IngestJob(settings, rule, Fence(warehouse.url, "made", 1, "made"))


def sources(count: int) -> list[ScanSource]:
    """The scans of an archive: two sessions of every subject."""
    return [_source(f"P{number // 2:06d}", str(number % 2 + 1)) for number in range(count)]


def _source(subject: str, session: str) -> ScanSource:
    stem = f"{subject}/{session}/{subject}_{session}"
    files = [SourceFile(role, f"{stem}_{role.lower()}.nii.gz", 2_000_000, "1") for role in (*MODALITIES, "mask")]
    return ScanSource(subject, session, tuple(files), "brats", "brats")


def write(warehouse: Store, scans: Sequence[ScanSource], parts: int) -> None:
    """Rows of `scans` and `segmentations` in so many parts of each; of `slices`, one part and copies of its file."""
    job, rng = job_of(warehouse), np.random.default_rng(0)
    bounds = np.linspace(0, len(scans), parts + 1).astype(int)
    for table in (SLICES, SCANS, SEGMENTATIONS):
        warehouse.fs.makedirs(warehouse.path(table.name), exist_ok=True)
    pixels: list[pa.Table] | None = None
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        rows = [_scan_row(source, job) for source in scans[start:stop]]
        stamp = {STAMP: b"%d" % number}
        name = f"{COHORT}.{number:016x}"
        if pixels is None:
            pixels = [pa.Table.from_batches([batch]) for row in rows for batch in _slices_of(row)]
            sample = _put(warehouse, SLICES, name, pixels, stamp)
        else:
            warehouse.fs.pipe_file(warehouse.path(SLICES.name, f"{name}.parquet"), sample)
        _put(warehouse, SCANS, name, [pa.Table.from_pylist(rows, SCANS.schema)], stamp)
        measured = pa.Table.from_pylist(list(_measures(rows, rng)), SEGMENTATIONS.schema)
        _put(warehouse, SEGMENTATIONS, f"{COHORT}.{MODEL}.made.{number:05d}", [measured], {})


def _put(warehouse: Store, table: Table, name: str, groups: list[pa.Table], stamp: dict[bytes, bytes]) -> bytes:
    """Write a part as PartWriter writes it, each table one row group, without flushing it to the disk."""
    content = pa.BufferOutputStream()
    with open_writer(content, table, stamp) as writer:
        for rows in groups:
            writer.write_table(rows)
    data = bytes(content.getvalue())
    warehouse.fs.pipe_file(warehouse.path(table.name, f"{name}.parquet"), data)
    return data


def _slices_of(row: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    channel = np.ones(_SHAPE, np.int16)
    return slices.row_groups(row, [channel] * len(MODALITIES), channel.astype(np.uint8), channel == 1, 1 << 20)


def _scan_row(source: ScanSource, job: IngestJob) -> dict[str, Any]:
    """The row of a scan that BraTS 2021 could have had."""
    statistics = dict.fromkeys(("mean", "std", "min", "p01", "median", "p99", "max"), 1.5)
    return {
        "scan_id": job.scan_id(source),
        "cohort": COHORT,
        "subject": source.subject,
        "session": source.session,
        "split": job.rule.of(source.subject),
        "split_rule": str(job.rule),
        "layout": source.layout,
        "label_convention": "brats",
        "modalities": list(MODALITIES),
        "orientation": "SPL",
        "shape": list(_SHAPE),
        "spacing_mm": [1.0, 1.0, 1.0],
        "affine": np.eye(4).ravel().tolist(),
        "brain_box": [0, 1, 0, 2, 0, 2],
        "brain_voxels": 4,
        "files": [_file_row(file) for file in source.files],
        "intensity": [{"modality": name, "voxels": 4} | statistics for name in MODALITIES],
        "label_counts": [{"label": label, "voxels": 1} for label in (0, 1, 2, 4)],
        "may_show_face": False,
        "fingerprint": job.fingerprint(source),
        "run_id": "made",
    }


def _file_row(file: SourceFile) -> dict[str, Any]:
    return {
        "role": file.role,
        "path": file.path,
        "bytes": file.bytes,
        "modified": file.modified,
        "sha256": "0" * 64,
        "dtype": "<i2",
        "shape": [240, 240, 155],
        "channel": 0,
        "orientation": "LPS",
        "affine": np.eye(4).ravel().tolist(),
        "slope": 1.0,
        "inter": 0.0,
        "container": "nifti1",
        "header": bytes(348),
        "extensions": b"",
        "blanked": [],
        "voxels_crc32": 1,
    }


def _measures(rows: Sequence[dict[str, Any]], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Rows of `segmentations`, drawn from distributions that resemble glioma."""
    for row in rows:
        whole = float(rng.lognormal(4, 0.6))
        for place, region in enumerate(REGIONS):
            volume = whole * (1.0, 0.4, 0.2)[place]
            centre = rng.normal(0, 30, 3).tolist()
            voxels = int(volume * 1000)
            flags = [name for name, share in (("low_confidence", 0.05), ("disconnected", 0.1)) if rng.random() < share]
            yield {
                **{name: row[name] for name in ("scan_id", "cohort", "subject", "session", "split", "fingerprint")},
                "model_id": MODEL,
                "region": region,
                "voxels": voxels,
                "volume_ml": volume,
                "centroid_mm": centre,
                "box_mm": [c - 20 for c in centre] + [c + 20 for c in centre],
                "lesions": int(rng.integers(1, 4)),
                "longest_diameter_mm": volume ** (1 / 3) * 12,
                "perpendicular_diameter_mm": volume ** (1 / 3) * 10,
                "mean_probability": float(rng.beta(9, 1)),
                "max_probability": 1.0,
                "qc_flags": flags,
                "truth_voxels": voxels,
                "truth_volume_ml": volume,
                "tp": voxels,
                "fp": 0,
                "fn": 0,
                "dice": float(rng.beta(9, 1)),
                "hd95_mm": float(rng.lognormal(1, 1)),
                "lesion_scores": [
                    {"truth_voxels": voxels, "voxels": voxels, "tp": voxels, "dice": 1.0, "hd95_mm": 0.0}
                ],
                "false_lesions": [],
                "run_id": "made",
            }
