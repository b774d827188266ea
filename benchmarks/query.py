"""Questions to the results of 100,000 scans, by Spark SQL and by DuckDB, beside the 5 s that each may take.

The table `segmentations` is generated: two sessions of 50,000 subjects, three regions each, in parts as large as
those that `segment` writes. An engine opens the table once, as a notebook does, and is asked each question three times;
the slowest median counts.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import report
from segpipe.pipelines.segment import MOST_SCANS
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Warehouse
from segpipe.warehouse.tables import SEGMENTATIONS

SUBJECTS = int(os.environ.get("BENCH_SUBJECTS", "50000"))
REGIONS = ("whole_tumour", "tumour_core", "enhancing_tumour")
LIMIT_SECONDS = 5.0
ROUNDS = 3

QUESTIONS = {
    "volume per region": """
        SELECT region, count(*) AS scans, avg(volume_ml) AS mean_ml, max(volume_ml) AS most_ml
        FROM segmentations GROUP BY region ORDER BY region""",
    "growth between two sessions": """
        SELECT one.subject, two.volume_ml - one.volume_ml AS growth_ml
        FROM segmentations one JOIN segmentations two
          ON one.subject = two.subject AND one.region = two.region AND one.model_id = two.model_id
        WHERE one.session = '1' AND two.session = '2' AND one.region = 'whole_tumour'
        ORDER BY growth_ml DESC, one.subject LIMIT 20""",
    "suspicious results": """
        SELECT scan_id, volume_ml, mean_probability FROM segmentations
        WHERE region = 'whole_tumour' AND {contains}(qc_flags, 'low_confidence') AND volume_ml > 50
        ORDER BY volume_ml DESC, scan_id LIMIT 100""",
}


def main() -> None:
    """Generate, ask, and report the slowest answer."""
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        warehouse = Warehouse(scratch)
        generate(warehouse)
        path = Path(scratch) / SEGMENTATIONS.name
        answers: dict[str, list[Any]] = {}
        for engine, ask in (("Spark SQL", spark_sql(path)), ("DuckDB", duckdb_sql(path))):
            for question, text in QUESTIONS.items():
                seconds = []
                for _ in range(ROUNDS):
                    start = time.perf_counter()
                    found = ask(text)
                    seconds.append(time.perf_counter() - start)
                told = [[round(v, 6) if isinstance(v, float) else v for v in row] for row in found]
                if answers.setdefault(question, told) != told:
                    raise AssertionError(f"{engine} answers {question} otherwise than Spark SQL")
                slowest = max(slowest, statistics.median(seconds))
                print(f"{engine}: {question} in {', '.join(f'{s:.2f}' for s in seconds)} s", flush=True)
    report("query", slowest, LIMIT_SECONDS, "s", less_is_better=True)


def generate(warehouse: Warehouse) -> None:
    """Write the rows of SUBJECTS subjects with two sessions each."""
    rng = np.random.default_rng(0)
    scans = [(subject, session) for subject in range(SUBJECTS) for session in ("1", "2")]
    for number, start in enumerate(range(0, len(scans), MOST_SCANS)):
        with PartWriter(warehouse, (SEGMENTATIONS,), f"made.{number:05d}", "made") as part:
            part.write(SEGMENTATIONS.name, rows_of(scans[start : start + MOST_SCANS], rng))


def rows_of(scans: list[tuple[int, str]], rng: np.random.Generator) -> pa.Table:
    """Rows of some scans, drawn from distributions that resemble glioma."""
    rows = []
    for subject, session in scans:
        whole = float(rng.lognormal(4, 0.6))
        for place, region in enumerate(REGIONS):
            volume = whole * (1.0, 0.4, 0.2)[place]
            centre = rng.normal(0, 30, 3).tolist()
            voxels = int(volume * 1000)
            flags = [name for name, share in (("low_confidence", 0.05), ("disconnected", 0.1)) if rng.random() < share]
            rows.append(
                {
                    "scan_id": f"made:P{subject:06d}:{session}",
                    "cohort": "made",
                    "subject": f"P{subject:06d}",
                    "session": session,
                    "split": "test",
                    "model_id": "0123456789abcdef",
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
                    "fingerprint": f"{subject:032x}",
                    "run_id": "made",
                }
            )
    return pa.Table.from_pylist(rows, SEGMENTATIONS.schema)


def spark_sql(path: Path) -> Callable[[str], list[Any]]:
    """What asks a Spark session."""
    from segpipe.launch.session import build

    spark = build("benchmark query", extra_conf={"spark.ui.enabled": "false"})

    spark.read.parquet(str(path)).createOrReplaceTempView("segmentations")

    def ask(text: str) -> list[Any]:
        return [list(row) for row in spark.sql(text.format(contains="array_contains")).collect()]

    return ask


def duckdb_sql(path: Path) -> Callable[[str], list[Any]]:
    """What asks DuckDB."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW segmentations AS SELECT * FROM read_parquet('{path}/*.parquet')")

    def ask(text: str) -> list[Any]:
        return [list(row) for row in connection.execute(text.format(contains="list_contains")).fetchall()]

    return ask
