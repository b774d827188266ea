"""An ingest as the tests run it, and tables in a form that can be compared."""

import shutil
from pathlib import Path

from segpipe.pipelines.ingest import IngestOutcome, ingest
from segpipe.readers.generate import write_brats
from segpipe.settings import IngestSettings
from segpipe.warehouse.runs import RunRecord, record_run
from segpipe.warehouse.store import Store

COHORT = "c"
_OF_A_RUN = ("run_id", "time")


def archive(folder: Path, subjects: int = 6, seed: int = 0, shape: tuple[int, int, int] = (8, 24, 20)) -> Path:
    """Generated scans in BraTS layout, small enough to be read in milliseconds."""
    write_brats(folder, subjects=subjects, seed=seed, shape=shape)
    return folder


def run_ingest(spark, source: Path, warehouse: Path, **settings) -> tuple[IngestOutcome, RunRecord]:
    chosen = IngestSettings(source=str(source), warehouse=str(warehouse), cohort=COHORT, **settings)
    with record_run(Store(chosen.warehouse), "ingest", chosen) as run:
        return ingest(spark, chosen, run), run


def tables(warehouse: Path) -> dict[str, list[dict]]:
    """All rows of scans, slices and quarantine in a fixed order, without what differs from run to run."""
    found = {}
    for name in ("scans", "slices", "quarantine"):
        rows = Store(str(warehouse)).table(name).to_table().to_pylist()
        kept = [{key: value for key, value in row.items() if key not in _OF_A_RUN} for row in rows]
        found[name] = sorted(
            kept, key=lambda row: (row["scan_id"] or "", row.get("slice_index", 0), row.get("paths", []))
        )
    return found


def part_files(warehouse: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every part of slices and scans: a part that was written again has others."""
    files = [path for name in ("slices", "scans") for path in (warehouse / name).glob("*.parquet")]
    return {f"{path.parent.name}/{path.name}": (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def leftovers(warehouse: Path) -> list[Path]:
    """What is staged: nothing, when no run is at work."""
    return sorted((warehouse / "_staging").rglob("*"))


def spoil(archive_folder: Path, subject: str, role: str, content: bytes) -> None:
    """Replace the content of one file of an archive."""
    (archive_folder / subject / f"{subject}_{role}.nii.gz").write_bytes(content)


def copy(source: Path, target: Path) -> Path:
    """A copy of an archive with the times of its files, so that its scans have the same fingerprints."""
    return Path(shutil.copytree(source, target))
