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

import jobs.demo
import jobs.ingest
from segpipe.cli import Context
from segpipe.storage import filesystem as files
from tests.hadoop.yarn_jobs import COHORT, SHORT, SMALL, Chain, put, yarn
from tools.hadoop import cluster as hadoop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="package")
def cluster() -> Iterator[hadoop.Cluster]:
    """The loopback cluster, healthy and named by HADOOP_CONF_DIR; ended after these tests unless it was up before."""
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


@pytest.fixture(scope="package")
def chain(
    cluster: hadoop.Cluster, glioma_archive: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Chain:
    """A cohort that `demo` took through all jobs on YARN in client mode, and its scans ingested by a local Spark."""
    local = tmp_path_factory.mktemp("yarn")
    folder = f"{cluster.file_system}/tests/{local.name}-{os.getpid()}"
    put(glioma_archive, f"{folder}/source")
    words = ("--source", f"{folder}/source", "--warehouse", folder, *SHORT, *SMALL)
    said = yarn("demo", *words, executors=2)
    ours = jobs.demo.ingest_settings(str(glioma_archive), str(local / "tables"), COHORT)
    jobs.ingest.run(ours, Context("ingest", spark))
    return Chain(glioma_archive, folder, local, said)


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
