"""100,000 scans in 3,000 parts: planning a run with nothing new, and questions to Spark SQL and DuckDB, beside limits.

Planning may take 10 s, an answer of Spark 5 s and of DuckDB 1 s; the figure is the largest share of its limit. The
tables `scans` and `segmentations` are generated as jobs write them. An engine opens the tables once, as a notebook
does, and is asked each question three times; medians count. Then the small parts are merged as `compact` merges them,
and all is asked again: told beside the figure, which is of the parts as they were.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _cohort, report
from segpipe.pipelines import compact
from segpipe.pipelines.ingest import plan_ingest
from segpipe.readers.archive import Listing
from segpipe.storage.lock import Fence
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS as SCANS_TABLE
from segpipe.warehouse.tables import SEGMENTATIONS

SCANS = int(os.environ.get("BENCH_SCANS", "100000"))
PARTS = int(os.environ.get("BENCH_PARTS", "3000"))
TABLES = ("scans", "segmentations")
PLAN_SECONDS = 10.0
PART_BYTES = 192_000_000
LIMITS = {"Spark SQL": 5.0, "DuckDB": 1.0}
ROUNDS = 3

QUESTIONS = {
    "scans per split": """
        SELECT split, count(*) AS scans, count(DISTINCT subject) AS subjects FROM scans GROUP BY split ORDER BY 1""",
    "scans of a subject": """
        SELECT scan_id, session, shape FROM scans WHERE subject = 'P000042' ORDER BY scan_id""",
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
    """Generate, plan, ask, and report the figure that comes nearest to its limit, or exceeds it most."""
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        warehouse = Store(os.environ.get("BENCH_WAREHOUSE", scratch))
        sources = _cohort.sources(SCANS)
        if not warehouse.parts("scans"):
            _cohort.write(warehouse, sources, PARTS)
        shares = {"plan": plan_seconds(warehouse, Listing(sources, [])) / PLAN_SECONDS}
        answers: dict[str, list[Any]] = {}
        shares |= asked(warehouse, answers)
        small = merged(warehouse, Path(scratch) / "merged")
        asked(small, answers, f", merged to {len(small.files('segmentations'))} parts")
    worst = max(shares, key=lambda name: shares[name])
    print(f"nearest to its limit: {worst}")
    report("query", shares[worst], 1.0, "of the limit", less_is_better=True)


def asked(warehouse: Store, answers: dict[str, list[Any]], about: str = "") -> dict[str, float]:
    """Ask both engines all questions; medians as shares of their limits. `answers` holds what has been answered."""
    shares = {}
    for engine, opened in (("DuckDB", duckdb_sql), ("Spark SQL", spark_sql)):
        ask = opened(Path(warehouse.path()))
        for question, text in QUESTIONS.items():
            seconds, found = timed(ask, text)
            told = [[round(v, 6) if isinstance(v, float) else v for v in row] for row in found]
            if answers.setdefault(question, told) != told:
                raise AssertionError(f"{engine} answers {question} otherwise than was answered before")
            shares[f"{engine}, {question}"] = statistics.median(seconds) / LIMITS[engine]
            print(f"{engine}: {question}{about} in {', '.join(f'{s:.2f}' for s in seconds)} s", flush=True)
    return shares


def merged(warehouse: Store, folder: Path) -> Store:
    """A copy of the tables whose parts `compact` has merged, as it does where their voxels take little room.

    Parts of `scans` that stand for some 200 MB of voxels each are left alone by it: this is the best that can be.
    """
    small = Store(str(folder))
    for table in (SCANS_TABLE, SEGMENTATIONS):
        shutil.copytree(warehouse.path(table.name), small.path(table.name))
        found = small.rows(table, ["scan_id"])
        counts = found.group_by("part").aggregate([("scan_id", "count_distinct")]).to_pylist()
        scans = {row["part"]: row["scan_id_count_distinct"] for row in counts}
        group = compact.MergeGroup("bench", (table,), "merged.", small.sizes(table.name), scans)
        for task in compact.plan(group, PART_BYTES, "bench"):
            compact.merge_part(small.url, task, Fence(small.url, "bench", 1, "bench"))
    return small


def plan_seconds(warehouse: Store, listing: Listing) -> float:
    """Seconds in which `ingest` finds that there is nothing to do, once the archive is listed."""
    start, processor = time.perf_counter(), time.process_time()
    job = _cohort.job_of(warehouse)
    warehouse.recover()
    plan = plan_ingest(warehouse, job, listing, warehouse.index(_cohort.COHORT), os.cpu_count() or 1)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    if plan.tasks or plan.skipped != len(listing.scans):
        raise AssertionError(f"{len(plan.tasks)} parts are planned, where there is nothing to do")
    print(f"plan of {plan.skipped} scans: {seconds:.1f} s, {processor:.1f} s of processor", flush=True)
    return seconds


def timed(ask: Callable[[str], list[Any]], text: str) -> tuple[list[float], list[Any]]:
    """Seconds of each round, and the answer."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found = ask(text)
        seconds.append(time.perf_counter() - start)
    return seconds, found


def spark_sql(path: Path) -> Callable[[str], list[Any]]:
    """What asks a Spark session."""
    from segpipe.launch.session import build

    spark = build("benchmark query", extra_conf={"spark.ui.enabled": "false"})

    for table in TABLES:
        spark.read.parquet(str(path / table)).createOrReplaceTempView(table)

    def ask(text: str) -> list[Any]:
        return [list(row) for row in spark.sql(text.format(contains="array_contains")).collect()]

    return ask


def duckdb_sql(path: Path) -> Callable[[str], list[Any]]:
    """What asks DuckDB."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET parquet_metadata_cache = true")  # footers are read once, and again where a file is newer
    for table in TABLES:
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path / table}/*.parquet')")

    def ask(text: str) -> list[Any]:
        return [list(row) for row in connection.execute(text.format(contains="list_contains")).fetchall()]

    return ask
