"""`doctor --profile yarn` against the real cluster: what is well, and each fault with the setting that mends it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segpipe.doctor import cluster as doctor_cluster
from segpipe.doctor.cluster import Asked
from segpipe.doctor.machine import Finding
from segpipe.launch.submitted import settings_of
from segpipe.launch.yarn import hadoop_settings
from tools.hadoop import cluster as hadoop

pytestmark = [pytest.mark.hadoop, pytest.mark.timeout(300)]
PROFILE = settings_of(["--properties-file", str(hadoop.ROOT / "conf" / "spark-yarn.conf")])


@pytest.fixture(scope="module")
def answer(cluster: hadoop.Cluster) -> dict[str, Any]:
    """What the resource manager answers."""
    found, complaint = doctor_cluster._probe(hadoop_settings(), "default", [])
    assert found is not None, complaint
    return found


@pytest.fixture
def elsewhere(cluster: hadoop.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Let HADOOP_CONF_DIR name a copy of the cluster's configuration in which one address is another."""

    def change(address: str, to: str) -> None:
        shutil.copytree(cluster.conf, tmp_path, dirs_exist_ok=True)
        for path in tmp_path.glob("*-site.xml"):
            path.write_text(path.read_text().replace(f">{address}<", f">{to}<"))
        monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))

    return change


def _of(check: str, findings: list[Finding]) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def test_a_healthy_cluster_has_no_fault_and_is_known_in_half_a_minute(cluster: hadoop.Cluster) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [hadoop.ROOT / "spark-submit.sh", "--profile", "yarn", "doctor", "--workers", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line[7:].split("  ")[0]: line[:5].strip() for line in done.stdout.splitlines()}
    checks = ("Configuration", "Name node", "Clock of HDFS", "Resource manager", "Hadoop version", "Queue")
    assert {check: rows[check] for check in (*checks, "Containers", "Clocks of YARN")} == dict.fromkeys(
        (*checks, "Containers", "Clocks of YARN"), "ok"
    ), done.stdout
    assert "Spark session" not in rows
    assert seconds < 30


def test_a_missing_configuration_ends_the_examination(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    last = list(doctor_cluster.examine(PROFILE))[-1]
    assert (last.check, last.state, last.remedy) == (
        "Configuration", "fault", "name the cluster's configuration folder",
    )  # fmt: skip


def test_daemons_that_nobody_reaches_are_named_with_address_and_setting(
    cluster: hadoop.Cluster, elsewhere: Callable[[str, str], None]
) -> None:
    nobody = list(
        hadoop.choose_ports({"a": cluster.ports["namenode.rpc"], "b": cluster.ports["namenode.rpc"]}).values()
    )
    elsewhere(cluster.file_system, f"hdfs://127.0.0.1:{nobody[0]}")
    elsewhere(f"127.0.0.1:{cluster.ports['resourcemanager.rpc']}", f"127.0.0.1:{nobody[1]}")
    site = hadoop_settings()
    site["fs.defaultFS"] = f"hdfs://127.0.0.1:{nobody[0]}"
    began = time.monotonic()
    name_node = list(doctor_cluster.name_node(site, f"{site['fs.defaultFS']}/user/me", time.time))[-1]
    _, manager = doctor_cluster._probe(site, "default", [])
    assert time.monotonic() - began < 20
    assert (name_node.state, manager.state) == ("fault", "fault")
    assert f"127.0.0.1:{nobody[0]} does not answer (Connection refused)" in name_node.detail
    assert "fs.defaultFS in core-site.xml" in name_node.remedy
    assert f"127.0.0.1:{nobody[1]} does not answer (Connection refused)" in manager.detail
    assert "yarn.resourcemanager.address" in manager.remedy


def test_a_service_that_is_no_resource_manager_is_a_fault(
    cluster: hadoop.Cluster, elsewhere: Callable[[str, str], None]
) -> None:
    web = f"127.0.0.1:{cluster.ports['namenode.http']}"
    elsewhere(f"127.0.0.1:{cluster.ports['resourcemanager.rpc']}", web)
    began = time.monotonic()
    answer, complaint = doctor_cluster._probe(hadoop_settings(), "default", [])
    assert answer is None
    assert complaint.state == "fault"
    assert time.monotonic() - began < 30


def test_clocks_that_differ_are_a_fault(cluster: hadoop.Cluster, answer: dict[str, Any]) -> None:
    site = hadoop_settings()
    for ahead, word in ((400, "ahead of"), (-400, "behind")):
        found = doctor_cluster.clocks(site, answer["nodes"], lambda ahead=ahead: time.time() + ahead)
        assert found.state == "fault"
        assert word in found.detail
        assert "timedatectl set-ntp true" in found.remedy
    folder = f"{cluster.file_system}/tests/doctor"
    clock = _of("Clock of HDFS", list(doctor_cluster.name_node(site, folder, lambda: time.time() + 400)))
    assert clock.state == "fault"
    assert "400 s ahead of the name node's" in clock.detail


@pytest.mark.parametrize(
    ("change", "check", "detail", "remedy"),
    [
        ({"executors": 4}, "Containers", "do not fit: 3 do, into 2 nodes", "--num-executors 3 and --workers 3"),
        ({"executor_mb": 10241}, "Memory", "a container may have 10240 MB", "yarn.scheduler.maximum-allocation-mb"),
        ({"master_mb": 20000}, "Memory", "the master asks for 20000 MB", "--driver-memory"),
        ({"executor_cores": 5}, "Cores", "a container may have 4", "--executor-cores 4"),
        ({"executor_mb": 1024, "executor_cores": 4, "executors": 4}, "Containers", "do not fit", "--executor-cores"),
    ],
)
def test_too_little_room_is_a_fault(
    answer: dict[str, Any], change: dict[str, int], check: str, detail: str, remedy: str
) -> None:
    found = _of(check, list(doctor_cluster.room(answer, replace(Asked.of(PROFILE, None), **change))))
    assert found.state == "fault"
    assert detail in found.detail
    assert remedy in found.remedy


def test_asked_is_what_spark_asks_for() -> None:
    assert Asked.of(PROFILE, None) == Asked(2, 5120, 1, 896, 1, "default")
    more = {"spark.executor.cores": "4", "spark.task.cpus": "2", "spark.submit.deployMode": "cluster"}
    assert Asked.of(PROFILE | more, 6) == Asked(3, 5120, 4, 4096, 1, "default")


def test_a_share_of_a_queue_and_others_at_work_are_counted(answer: dict[str, Any]) -> None:
    asked = Asked.of(PROFILE, None)
    halved = answer | {"queue": answer["queue"] | {"share": 0.5}}
    found = _of("Containers", list(doctor_cluster.room(halved, asked)))
    assert (found.state, "may use 50%" in found.detail) == ("fault", True)
    busy = answer | {"nodes": [node | {"free_mb": 0} for node in answer["nodes"]]}
    assert _of("Containers", list(doctor_cluster.room(busy, asked))).state == "note"


def test_a_queue_that_does_not_exist_is_a_fault_that_names_those_that_do(cluster: hadoop.Cluster) -> None:
    answer, _ = doctor_cluster._probe(hadoop_settings(), "nowhere", [])
    assert answer is not None
    (found,) = doctor_cluster.queue(answer, replace(Asked.of(PROFILE, None), queue="nowhere"))
    assert (found.state, found.detail) == ("fault", "nowhere does not exist")
    assert found.remedy == "--queue with one of default"


def test_settings_that_forbid_a_training_are_named(cluster: hadoop.Cluster) -> None:
    conf = PROFILE | {"spark.dynamicAllocation.enabled": "true", "spark.speculation": "true"}
    dynamic, speculation, slots = doctor_cluster.settings(conf, 4)
    assert dynamic.remedy == "--conf spark.dynamicAllocation.enabled=false"
    assert speculation.remedy == "--conf spark.speculation=false"
    assert slots.remedy == "--conf spark.executor.instances=4"
    assert {finding.state for finding in (dynamic, speculation, slots)} == {"fault"}
    (fine,) = doctor_cluster.settings(PROFILE, 2)
    assert fine.state == "ok"


def test_a_cluster_of_another_major_version_is_a_fault() -> None:
    assert doctor_cluster.version("3.3.4", "3.4.1").state == "ok"
    assert doctor_cluster.version("3.3.4", "2.10.2").state == "fault"


def test_a_cluster_without_kerberos_is_not_asked_for_a_ticket(cluster: hadoop.Cluster) -> None:
    assert list(doctor_cluster.kerberos(hadoop_settings(), {})) == []
