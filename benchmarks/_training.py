"""What the benchmarks of training share: the tables they feed from, and rates measured in processes of their own.

TensorFlow fixes its threads and its use of oneDNN when it starts, so that every measurement is a process.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._real import brats_subjects
from segpipe.models import TENSORFLOW_ENVIRONMENT
from segpipe.settings import IngestSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store

COHORT = "bench"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
_ROOT = Path(__file__).resolve().parents[1]


def tables(folder: Path) -> str:
    """A warehouse of the real scans, all of them in the training split."""
    from segpipe.launch.session import build
    from segpipe.pipelines.ingest import ingest

    url = str(folder / "tables")
    source = str(brats_subjects()[0].parent)
    settings = IngestSettings(
        source=source, warehouse=url, cohort=COHORT, train_fraction=1.0, validation_fraction=0.0, row_group_mb=8
    )
    spark = build("benchmark tables", master="local[2]", extra_conf={"spark.ui.enabled": "false"})
    with record_run(Store(url), "ingest", settings) as run:
        ingest(spark, settings, run)
    spark.stop()
    return url


def measured(what: str, tables: str, threads: int = 1, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What `benchmarks._training_process` prints of one measurement, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks._training_process", what, tables, str(threads)]
    fixed = {
        **TENSORFLOW_ENVIRONMENT,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(_ROOT),
    }
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **fixed, **(environment or {})},
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def together(what: str, tables: str, processes: int) -> list[dict[str, Any]]:
    """The same measurement in several processes at once, that share nothing but the machine."""
    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(lambda _: measured(what, tables), range(processes)))


def beside_plain_keras(trainer: str) -> tuple[float, float]:
    """Images/s of two workers fed from Parquet, and twice those of plain Keras fed from memory: medians of rounds.

    Also told: two plain processes at once, which is what the machine leaves of twice one.
    """
    import statistics
    import tempfile

    ours, reference = [], []
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        url = tables(Path(scratch))
        for number in range(ROUNDS):
            plain = 2 * measured("plain", url)["images_per_second"]
            epochs = measured(trainer, url)["images_per_second"]
            steady = statistics.median(epochs[1:])
            both = sum(one["images_per_second"] for one in together("plain", url, 2))
            told = ", ".join(f"{rate:.1f}" for rate in epochs)
            print(f"round {number + 1}: {trainer} {told} images/s by epoch", flush=True)
            print(f"  plain Keras: twice one process {plain:.1f}, two processes at once {both:.1f}", flush=True)
            ours.append(steady)
            reference.append(plain)
    return statistics.median(ours), statistics.median(reference)
