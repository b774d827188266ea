"""Jobs on YARN while executors and whole nodes die."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import jobs.ingest
import jobs.segment
from segpipe.cli import Context
from segpipe.readers.generate import write_brats
from segpipe.settings import IngestSettings, SegmentSettings
from segpipe.storage import filesystem as files
from segpipe.storage.model_directory import read_history
from segpipe.warehouse.store import Store
from tests.hadoop.yarn_jobs import (
    NETWORK,
    Chain,
    applications,
    done,
    end,
    get,
    last_application,
    lost_tasks,
    put,
    rows,
    started,
    without_times,
)
from tools.hadoop import cluster as hadoop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.hadoop, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a job on YARN, ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        running.append(started(*words))
        return running[-1]

    yield start
    for job in running:
        if job.poll() is None:
            job.terminate()
        job.communicate()


def _until(true: Callable[[], bool], job: subprocess.Popen[str], seconds: float = 200) -> None:
    """Wait for something that happens while a job runs."""
    deadline = time.monotonic() + seconds
    while not true():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline, f"nothing after {seconds:.0f} s"
        time.sleep(0.02)


def _executors(cluster: hadoop.Cluster, worker: int) -> list[psutil.Process]:
    return [
        process
        for process in hadoop.containers(cluster, [worker])
        if process.name() == "java" and any("CoarseGrainedExecutorBackend" in word for word in process.cmdline())
    ]


def test_training_resumes_when_an_executor_dies(cluster: hadoop.Cluster, start: Start, chain: Chain) -> None:
    model = f"{chain.folder}/killed"
    words = [*chain.cohort, "--model", model, "--trainer", "orca"]
    job = start("train", *words, "--workers", "2", *NETWORK, "--epochs", "8", "--steps-per-epoch", "10")
    _until(lambda: len(read_history(model)) >= 2, job)
    _executors(cluster, 1)[0].kill()
    done(job)
    assert [row["epoch"] for row in read_history(model)] == list(range(1, 9))
    runs = Store(chain.warehouse).table("runs").to_table().sort_by("started").to_pylist()
    assert (runs[-1]["job"], runs[-1]["outcome"], dict(runs[-1]["counts"])["retries"]) == ("train", "done", 1)
    assert not hadoop.containers(cluster)


@pytest.fixture(scope="module")
def cohort(
    chain: Chain, cluster: hadoop.Cluster, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Chain:
    """Scans for six tasks and more, on HDFS, and ingested by a local Spark; a job has run on YARN before."""
    local = tmp_path_factory.mktemp("faults")
    folder = f"{cluster.file_system}/tests/{local.name}-{os.getpid()}"
    write_brats(local / "source", subjects=8, seed=1, shape=(48, 96, 96))
    put(local / "source", f"{folder}/source")
    settings = IngestSettings(source=str(local / "source"), warehouse=str(local / "tables"), cohort="glioma")
    jobs.ingest.run(settings, Context("ingest", spark))
    return Chain(local / "source", folder, local)


@pytest.fixture
def mended(cluster: hadoop.Cluster) -> Iterator[None]:
    """Afterwards what was killed runs again, and no application is left over.

    A master that YARN starts again after its job has ended would look for the driver for minutes.
    """
    yield
    hadoop.up(cluster.state)
    for app in applications(cluster):
        if app["finalStatus"] == "UNDEFINED":
            end(cluster, app["id"])
    deadline = time.monotonic() + 120
    while left := [app["id"] for app in applications(cluster) if app["finalStatus"] == "UNDEFINED"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    _, left_over = psutil.wait_procs(hadoop.containers(cluster), timeout=30)
    assert not left_over


def _cut_power(cluster: hadoop.Cluster, job: subprocess.Popen[str], table: str, of_master: bool) -> str:
    """Kill a whole worker while its executor works: that of the application master, or the other one.

    `table` is a URL; one part stands there, and more are to come. Gives the id of the application.
    """
    fs, folder = files.filesystem(table)
    _until(lambda: bool(files.names(fs, folder)), job)
    application = last_application(cluster, f"segpipe {'segment' if 'predictions' in table else 'ingest'}")
    port = int(application["amHostHttpAddress"].rpartition(":")[2])
    (master,) = [worker for worker in hadoop.WORKERS if cluster.ports[f"nodemanager-{worker}.http"] == port]
    (victim,) = [worker for worker in hadoop.WORKERS if (worker == master) is of_master]
    assert _executors(cluster, victim)
    hadoop.power_cut(cluster, victim)
    assert job.poll() is None
    return application["id"]


def _last_run(warehouse: str) -> tuple[str, str, int]:
    run = Store(warehouse).table("runs").to_table().sort_by("started").to_pylist()[-1]
    return run["job"], run["outcome"], dict(run["counts"])["quarantined"]


@pytest.mark.usefixtures("mended")
def test_ingest_survives_the_node_of_its_application_master(
    cluster: hadoop.Cluster, start: Start, cohort: Chain
) -> None:
    words = ("--source", f"{cohort.folder}/source", "--warehouse", cohort.warehouse, "--cohort", "glioma")
    job = start("ingest", *words, "--part-mb", "1")
    application = _cut_power(cluster, job, f"{cohort.warehouse}/scans", of_master=True)
    done(job)
    assert lost_tasks(application) >= 1
    ours, by = cohort.local_warehouse, ("scan_id", "slice_index")
    assert rows(cohort.warehouse, "slices", *by).equals(rows(ours, "slices", *by))
    assert without_times(rows(cohort.warehouse, "scans", "scan_id")) == without_times(rows(ours, "scans", "scan_id"))
    assert _last_run(cohort.warehouse) == ("ingest", "done", 0)


@pytest.mark.usefixtures("mended")
def test_segment_survives_the_node_of_an_executor(
    cluster: hadoop.Cluster, start: Start, cohort: Chain, spark: SparkSession, chain: Chain, tmp_path: Path
) -> None:
    theirs, ours = f"{cohort.folder}/segmented", cohort.local_warehouse
    put(Path(cohort.local_warehouse), theirs)
    job = start("segment", "--warehouse", theirs, "--cohort", "glioma", "--model", chain.model)
    application = _cut_power(cluster, job, f"{theirs}/predictions", of_master=False)
    done(job)
    assert lost_tasks(application) >= 1
    get(chain.model, tmp_path / "model")
    jobs.segment.run(SegmentSettings(ours, "glioma", str(tmp_path / "model")), Context("segment", spark))
    for table, by in (("predictions", ("scan_id", "slice_index")), ("segmentations", ("scan_id", "region"))):
        assert rows(theirs, table, *by).equals(rows(ours, table, *by))
    assert _last_run(theirs) == ("segment", "done", 0)
