"""The loopback cluster itself: started twice, its processes, what a killed node manager leaves, ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.hadoop import cluster as hadoop

pytestmark = [pytest.mark.hadoop, pytest.mark.timeout(300)]
SCRIPT = Path(hadoop.__file__)


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False)


def _pids(cluster: hadoop.Cluster) -> dict[str, int | None]:
    processes = {daemon.name: hadoop.process_of(cluster, daemon.name) for daemon in cluster.daemons()}
    return {name: process.pid if process else None for name, process in processes.items()}


def test_six_daemons_run_and_starting_again_starts_none(cluster: hadoop.Cluster) -> None:
    before = _pids(cluster)
    done = _command("up")
    assert done.returncode == 0, done.stderr
    assert _pids(cluster) == before
    assert None not in before.values()
    assert len(set(before.values())) == 6
    for use in ("namenode", "resourcemanager", "datanode-1", "datanode-2", "nodemanager-1", "nodemanager-2"):
        assert cluster.web(use) in done.stdout
    assert f"export HADOOP_CONF_DIR={cluster.conf}" in done.stdout


def test_nodes_do_not_see_the_submitting_machine_s_python_and_code(cluster: hadoop.Cluster) -> None:
    hidden = hadoop.hidden_from_nodes(hadoop.find_java())
    assert hadoop.ROOT / "segpipe" in hidden
    for worker in hadoop.WORKERS:
        process = hadoop.process_of(cluster, f"nodemanager-{worker}")
        assert process is not None
        own = os.readlink("/proc/self/ns/mnt")
        if os.readlink(f"/proc/{process.pid}/ns/mnt") == own:
            pytest.skip("this system allows no mount name spaces: the nodes share this machine's files")
        for folder in hidden:
            assert os.listdir(f"/proc/{process.pid}/root{folder}") == []
            assert os.listdir(folder) != []


def test_a_killed_daemon_is_missed_and_started_again_by_up(cluster: hadoop.Cluster) -> None:
    before = _pids(cluster)
    hadoop.kill(cluster, "datanode-2")
    assert _pids(cluster) == before | {"datanode-2": None}
    done = _command("up")
    assert done.returncode == 0, done.stderr
    after = _pids(cluster)
    assert after["datanode-2"] not in (None, before["datanode-2"])
    assert after | {"datanode-2": None} == before | {"datanode-2": None}
    assert hadoop.complaints(cluster) == []


@pytest.mark.long
def test_another_cluster_beside_it_takes_other_ports_and_leaves_no_process(
    cluster: hadoop.Cluster, tmp_path: Path
) -> None:
    other = hadoop.up(tmp_path / "other", node_memory_mb=1024)
    try:
        assert not set(other.ports.values()) & set(cluster.ports.values())
        pids = [pid for pid in _pids(other).values() if pid]
        assert len(pids) == 6
    finally:
        hadoop.down(tmp_path / "other")
    assert set(_pids(other).values()) == {None}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert hadoop.complaints(cluster) == []
    hadoop.down(tmp_path / "other")  # twice is fine


def test_without_java_or_maven_it_says_so(tmp_path: Path) -> None:
    for tools, missing in ((), "Java is missing"), (("java",), "Maven is missing"):
        folder = tmp_path / f"{len(tools)}"
        folder.mkdir()
        for tool in tools:
            (folder / tool).symlink_to(hadoop.find_java() / "bin" / tool)
        done = subprocess.run(
            [sys.executable, SCRIPT, "--state", str(tmp_path / "state"), "up"],
            env={"PATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"hadoop: {missing}: ")
