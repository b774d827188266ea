"""A real Hadoop cluster for the tests of this folder: the one that is up, or one of their own."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator

import pytest

from segpipe.warehouse import filesystem as files
from tools.hadoop import cluster as hadoop


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
