"""Small rows that obey the schemas, for tests that need tables but no scans."""

import numpy as np
import pyarrow as pa

from segpipe.core.splits import SplitRule
from segpipe.warehouse import slices
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, SLICES

RULE = SplitRule("salt", 0.7, 0.15)


def images(rng: np.random.Generator, shape=(4, 3, 5)) -> list[np.ndarray]:
    """Two channels of different dtype and byte order."""
    return [rng.integers(-9, 9, shape).astype(">i2"), rng.normal(size=shape).astype("<f4")]


def scan_row(subject: str, cohort: str = "c", /, **changes) -> dict:
    row = {
        "scan_id": f"{cohort}:{subject}:1",
        "cohort": cohort,
        "subject": subject,
        "session": "1",
        "split": RULE.of(subject),
        "split_rule": str(RULE),
        "layout": "brats",
        "label_convention": "brats",
        "modalities": ["flair", "t1"],
        "orientation": "SPL",
        "shape": [4, 3, 5],
        "spacing_mm": [1.0, 1.0, 1.0],
        "affine": np.eye(4).ravel().tolist(),
        "brain_box": [0, 4, 0, 3, 0, 5],
        "brain_voxels": 60,
        "resampled_to": None,
        "files": [],
        "intensity": [],
        "label_counts": [],
        "fingerprint": f"print of {subject}",
        "run_id": "r1",
    }
    return row | changes


def write_part(
    warehouse: Store, name: str, subjects: list[str], run_id: str = "r1", fence=None, cohort: str = "c", **changes
) -> None:
    """A part of `slices` and `scans`; the voxels of a scan depend on its subject and `run_id` alone."""
    with PartWriter(warehouse, (SLICES, SCANS), name, run_id, fence) as part:
        for subject in subjects:
            row = scan_row(subject, cohort, **({"run_id": run_id} | changes))
            rng = np.random.default_rng(list(f"{subject} {run_id}".encode()))
            channels = images(rng)
            mask = rng.integers(0, 2, channels[0].shape).astype(np.uint8)
            for batch in slices.row_groups(row, channels, mask, mask == mask, group_bytes=2 * 15 * 7):
                part.write("slices", batch)
            part.write("scans", pa.Table.from_pylist([row], SCANS.schema))
