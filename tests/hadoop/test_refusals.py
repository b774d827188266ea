"""What jobs on YARN say when the cluster refuses them: one line with the remedy, within a minute.

A job has run before: the first of all takes minutes more, while Python is packed and every node unpacks it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from segpipe.storage import filesystem as files
from tests.hadoop.yarn_jobs import refused
from tools.hadoop import cluster as hadoop

pytestmark = [pytest.mark.hadoop, pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("chain")]


def _ingest(archive: Path) -> tuple[str, ...]:
    """What is refused before any scan is read."""
    return "ingest", "--source", str(archive), "--warehouse", "hdfs:///tests/refused", "--cohort", "glioma"


def test_a_name_node_in_safe_mode_is_one_line(cluster: hadoop.Cluster, glioma_archive: Path) -> None:
    hadoop.hdfs_admin(cluster, "-safemode", "enter")
    try:
        line = refused(*_ingest(glioma_archive))
    finally:
        hadoop.hdfs_admin(cluster, "-safemode", "leave")
    assert "SafeModeException" in line
    assert "wait until the name node has left safe mode" in line


@pytest.mark.long  # test_hdfs.py has the message in the gate, and safe mode shows that a job tells one as a line
def test_no_permission_is_one_line(
    cluster: hadoop.Cluster, glioma_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "eve")
    line = refused(*_ingest(glioma_archive))
    assert "user=eve, access=WRITE" in line
    assert line.endswith("ask the owner of the folder for access, or give a folder of your own")


@pytest.mark.parametrize(
    ("options", "problem", "remedy"),
    [
        (("--queue", "nowhere"), "Queue nowhere does not exist", "give --queue one that `doctor` names"),
        pytest.param(
            ("--executor-memory", "9g"),
            "9216 MB and 4096 MB overhead",
            "yarn.scheduler.maximum-allocation-mb",
            marks=pytest.mark.long,
        ),
        (("--deploy-mode", "cluster", "--driver-memory", "9g"), "A driver of 9216 MB and 3072 MB", "--driver-memory"),
    ],
)
def test_what_yarn_cannot_give_is_one_line(
    cluster: hadoop.Cluster, glioma_archive: Path, options: tuple[str, ...], problem: str, remedy: str
) -> None:
    line = refused(*options, *_ingest(glioma_archive))
    assert problem in line
    assert remedy in line


@pytest.mark.long
def test_a_full_quota_is_one_line(cluster: hadoop.Cluster, glioma_archive: Path, hdfs_folder: str) -> None:
    _, path = files.filesystem(hdfs_folder)
    hadoop.hdfs_admin(cluster, "-setSpaceQuota", "100k", path)
    line = refused("ingest", "--source", str(glioma_archive), "--warehouse", hdfs_folder, "--cohort", "glioma")
    assert "DSQuotaExceededException" in line
    assert line.endswith("ask the administrator for a larger space quota")
