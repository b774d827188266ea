"""Jobs on YARN while executors die."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from segpipe.trainers.records import read_history
from segpipe.warehouse.store import Warehouse
from tests.hadoop.yarn_jobs import NETWORK, Chain, done, started
from tools.hadoop import cluster as hadoop

pytestmark = [pytest.mark.hadoop, pytest.mark.slow, pytest.mark.timeout(600)]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a job on YARN, ended with the test."""
    jobs: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        jobs.append(started(*words))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.poll() is None:
            job.terminate()
        job.communicate()


def _until(true: Callable[[], bool], job: subprocess.Popen[str], seconds: float = 200) -> None:
    """Wait for something that happens while a job runs."""
    deadline = time.monotonic() + seconds
    while not true():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _executors(cluster: hadoop.Cluster, worker: int) -> list[psutil.Process]:
    return [
        process
        for process in hadoop.containers(cluster, [worker])
        if process.name() == "java" and any("CoarseGrainedExecutorBackend" in word for word in process.cmdline())
    ]


def test_training_resumes_when_an_executor_dies(cluster: hadoop.Cluster, start: Start, chain: Chain) -> None:
    model = f"{chain.folder}/killed"
    words = ["--warehouse", chain.warehouse, "--cohort", "glioma", "--model", model, "--trainer", "orca"]
    job = start("train", *words, "--workers", "2", *NETWORK, "--epochs", "8", "--steps-per-epoch", "10")
    _until(lambda: len(read_history(model)) >= 2, job)
    _executors(cluster, 1)[0].kill()
    done(job)
    assert [row["epoch"] for row in read_history(model)] == list(range(1, 9))
    runs = Warehouse(chain.warehouse).table("runs").to_table().sort_by("started").to_pylist()
    assert (runs[-1]["job"], runs[-1]["outcome"], dict(runs[-1]["counts"])["retries"]) == ("train", "done", 1)
    assert not hadoop.containers(cluster)
