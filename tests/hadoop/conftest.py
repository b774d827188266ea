"""A real Hadoop cluster for the tests of this folder: the one that is up, or one of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import jobs.ingest
from segpipe.cli import Context
from segpipe.settings import IngestSettings
from segpipe.storage import filesystem as files
from tests.hadoop.yarn_jobs import NETWORK, Chain, put, yarn
from tools.hadoop import cluster as hadoop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def cluster() -> Iterator[hadoop.Cluster]:
    """The loopback cluster, healthy; ended afterwards unless it was up before. HADOOP_CONF_DIR names it."""
    missing = [tool for tool in ("java", "mvn") if not shutil.which(tool)]
    if missing:
        message = f"no {' and no '.join(missing)} on the PATH: the Hadoop cluster of these tests needs both"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    was_up = hadoop.is_up()
    running = hadoop.up()
    before = os.environ.get("HADOOP_CONF_DIR")
    os.environ["HADOOP_CONF_DIR"] = str(running.conf)
    yield running
    os.environ.pop("HADOOP_CONF_DIR")
    if before is not None:
        os.environ["HADOOP_CONF_DIR"] = before
    if not was_up:
        hadoop.down()


@pytest.fixture
def hdfs_folder(cluster: hadoop.Cluster) -> Iterator[str]:
    """The URL of an empty folder on HDFS, deleted afterwards."""
    url = f"{cluster.file_system}/tests/{uuid.uuid4().hex}"
    fs, path = files.filesystem(url)
    fs.makedirs(path)
    yield url
    fs.rm(path, recursive=True)


@pytest.fixture(scope="session")
def chain(
    cluster: hadoop.Cluster, glioma_archive: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Chain:
    """A cohort ingested on YARN in client mode, and by the tests' local Spark."""
    local = tmp_path_factory.mktemp("yarn")
    folder = f"{cluster.file_system}/tests/{local.name}-{os.getpid()}"
    put(glioma_archive, f"{folder}/source")
    words = ("ingest", "--source", f"{folder}/source", "--warehouse", f"{folder}/warehouse", "--cohort", "glioma")
    yarn(*words, executors=2)
    settings = IngestSettings(source=str(glioma_archive), warehouse=str(local / "warehouse"), cohort="glioma")
    jobs.ingest.run(settings, Context("ingest", spark))
    return Chain(glioma_archive, folder, local)


@pytest.fixture(scope="session")
def orca_model(chain: Chain, cluster: hadoop.Cluster) -> str:
    """A model trained by Orca in cluster mode and exported in client mode."""
    model = f"{chain.folder}/orca"
    words = [
        "--warehouse",
        chain.warehouse,
        "--cohort",
        "glioma",
        "--model",
        model,
        "--trainer",
        "orca",
        "--workers",
        "2",
    ]
    yarn("train", *words, *NETWORK, mode="cluster", executors=2)
    yarn("export", "--model", model)
    return model


_DEAD = """
import time
from segpipe.errors import StorageError
from segpipe.storage import filesystem as files
began = time.monotonic()
try:
    files.filesystem("hdfs://127.0.0.1:1/")[0].ls("/")
except StorageError as error:
    print(round(time.monotonic() - began), error)
"""


@pytest.fixture(scope="session", autouse=True)
def dead_name_node() -> Iterator[subprocess.Popen[str]]:
    """A process that asks a name node which is not there, and prints seconds and error; it takes most of a minute."""
    command = [sys.executable, "-c", _DEAD]
    with subprocess.Popen(command, cwd=hadoop.ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()
