"""The jobs on YARN, from hdfs:// to hdfs://, beside the same jobs in local mode: the same tables, row for row."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import jobs.restore
import jobs.segment
from segpipe.cli import Context
from segpipe.core.splits import SplitRule
from segpipe.errors import UsageError
from segpipe.models.bundle import Bundle
from segpipe.readers.sources import find
from segpipe.settings import RestoreSettings, SegmentSettings
from segpipe.storage import filesystem as files
from segpipe.warehouse.store import Store
from tests.hadoop.yarn_jobs import (
    COHORT,
    NETWORK,
    SHORT,
    Chain,
    get,
    last_application,
    nodes_of_last_job,
    put,
    rows,
    shown_of,
    without_times,
    yarn,
)
from tests.readers.test_dicom import archive as write_dicom
from tests.readers.test_dicom import stack
from tools.hadoop import cluster as hadoop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.hadoop, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_demo_runs_the_whole_chain_from_hdfs_to_hdfs(chain: Chain, cluster: hadoop.Cluster) -> None:
    assert "mean Dice of whole_tumour on 1 unseen patients" in chain.said
    assert f"report: {chain.folder}/report.html" in chain.said
    assert nodes_of_last_job(cluster, "segpipe demo") == {"nodemanager-1", "nodemanager-2"}
    runs = Store(chain.warehouse).table("runs").to_table().sort_by("started").to_pylist()
    steps = ("ingest", "train", "export", "segment", "evaluate")
    assert [(run["job"], run["outcome"]) for run in runs[:5]] == [(job, "done") for job in steps]
    subjects = {path.name for path in chain.source.iterdir()}
    assert len(subjects) == 6
    for table in ("scans", "segmentations"):
        found = Store(chain.warehouse).table(table).to_table(["subject"])
        assert set(found["subject"].to_pylist()) == subjects
    Bundle.load(chain.model).verify()
    fs, page = files.filesystem(f"{chain.folder}/report.html")
    text = fs.cat_file(page).decode()
    assert all(subject in text for subject in subjects)


def test_ingest_gives_the_tables_of_local_mode(chain: Chain) -> None:
    theirs, ours = chain.warehouse, chain.local_warehouse
    assert rows(theirs, "slices", "scan_id", "slice_index").equals(rows(ours, "slices", "scan_id", "slice_index"))
    assert without_times(rows(theirs, "scans", "scan_id")) == without_times(rows(ours, "scans", "scan_id"))


def test_segment_gives_the_tables_of_local_mode(chain: Chain, spark: SparkSession) -> None:
    model = chain.local / "model"
    get(chain.model, model)
    jobs.segment.run(SegmentSettings(chain.local_warehouse, COHORT, str(model)), Context("segment", spark))
    for table, by in (("predictions", ("scan_id", "slice_index")), ("segmentations", ("scan_id", "region"))):
        assert rows(chain.warehouse, table, *by).equals(rows(chain.local_warehouse, table, *by))


@pytest.mark.parametrize("in_cluster", [False, pytest.param(True, marks=pytest.mark.long)])
def test_segment_again_does_nothing_twice(chain: Chain, spark: SparkSession, in_cluster: bool) -> None:
    """By a driver on the cluster too; the gate sends one job there, an ingest."""
    before = rows(chain.warehouse, "predictions", "scan_id", "slice_index")
    if in_cluster:
        yarn("segment", *chain.cohort, "--model", chain.model, mode="cluster")
    else:
        jobs.segment.run(SegmentSettings(chain.warehouse, COHORT, chain.model), Context("segment", spark))
    assert rows(chain.warehouse, "predictions", "scan_id", "slice_index").equals(before)
    runs = Store(chain.warehouse).table("runs").to_table().sort_by("started").to_pylist()
    assert (runs[-1]["job"], dict(runs[-1]["counts"])["scans_skipped"]) == ("segment", 6)


def test_a_key_on_hdfs_names_patients_in_cluster_mode_and_is_shown_nowhere(
    hdfs_folder: str, cluster: hadoop.Cluster, tmp_path: Path
) -> None:
    key, patient = "a secret that only HDFS knows", "ROE^JANE_19700101"
    write_dicom(tmp_path / patient, stack(4, PatientID=patient))
    (expected,) = find(str(tmp_path), subject_key=key.encode()).scans
    put(tmp_path, f"{hdfs_folder}/dicom")
    fs, path = files.filesystem(f"{hdfs_folder}/key")
    fs.pipe_file(path, f"{key}\n".encode())
    warehouse = f"{hdfs_folder}/keyed"
    where = ("--source", f"{hdfs_folder}/dicom", "--warehouse", warehouse, "--cohort", COHORT)
    said = yarn("ingest", *where, "--subject-key-file", f"{hdfs_folder}/key", mode="cluster")
    (found,) = Store(warehouse).scans(COHORT, ("subject", "session")).to_pylist()
    assert (found["subject"], found["session"]) == expected.identity
    told = said.encode() + shown_of(cluster, last_application(cluster, "segpipe ingest")["id"])
    assert b"--subject-key-file" in told
    assert key.encode() not in told
    assert patient.encode() not in told


@pytest.mark.long
def test_horovod_trains_on_both_nodes(chain: Chain, cluster: hadoop.Cluster) -> None:
    pytest.importorskip("horovod")
    model = f"{chain.folder}/horovod"
    words = (*chain.cohort, "--model", model, "--trainer", "horovod", "--workers", "2", *NETWORK, *SHORT)
    yarn("train", *words, executors=2)
    assert nodes_of_last_job(cluster, "segpipe train") == {"nodemanager-1", "nodemanager-2"}
    Bundle.load(model).verify()


@pytest.mark.long
def test_the_jobs_one_by_one_in_cluster_mode(chain: Chain, cluster: hadoop.Cluster, tmp_path: Path) -> None:
    """The demo has shown all of them in client mode, and one of them is sent in cluster mode by the gate."""
    tables, model = f"{chain.folder}/again", f"{chain.folder}/orca"
    here = ("--warehouse", tables, "--cohort", COHORT)
    rule = SplitRule.parse(next(iter(Store(chain.warehouse).index(COHORT).values()))["split_rule"])
    shares = ("--train-fraction", str(rule.train), "--validation-fraction", str(rule.validation))
    source = ("--source", f"{chain.folder}/source")
    yarn("ingest", *source, *here, "--split-salt", rule.salt, *shares, mode="cluster", executors=2)
    words = (*here, "--model", model, "--trainer", "orca", "--workers", "2", *NETWORK, *SHORT)
    yarn("train", *words, mode="cluster", executors=2)
    assert nodes_of_last_job(cluster, "segpipe train") == {"nodemanager-1", "nodemanager-2"}
    yarn("export", "--model", model, mode="cluster")
    yarn("segment", *here, "--model", model, mode="cluster", executors=2)
    said = yarn("evaluate", *here, "--model", model, "--split", "all")
    assert "whole_tumour" in said
    assert rows(tables, "slices", "scan_id", "slice_index").equals(
        rows(chain.warehouse, "slices", "scan_id", "slice_index")
    )
    assert Store(tables).table("segmentations").count_rows() == 18


def test_restore_gives_the_voxels_and_headers_of_the_source(chain: Chain) -> None:
    (scan_id, *_) = Store(chain.warehouse).table("scans").to_table(columns=["scan_id"])["scan_id"].to_pylist()
    settings = RestoreSettings(chain.warehouse, scan_id, f"{chain.folder}/restored")
    assert not jobs.restore.run(settings, Context("restore"))  # it computes in the driver alone
    restored = chain.local / "restored"
    get(f"{chain.folder}/restored", restored)
    found = sorted(path.relative_to(restored) for path in restored.rglob("*.nii.gz"))
    assert len(found) == 5
    for path in found:
        assert gzip.decompress((restored / path).read_bytes()) == gzip.decompress((chain.source / path).read_bytes())


def test_what_nodes_need_is_put_on_hdfs_once(
    chain: Chain, cluster: hadoop.Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    from segpipe.launch.yarn import hadoop_settings, staging_folder, submit_options

    fs, staging = files.filesystem(staging_folder(hadoop_settings()))

    def archives() -> dict[str, int]:
        found = [entry for entry in fs.ls(staging) if entry["name"].endswith((".tar", ".tar.gz"))]
        return {entry["name"].rpartition("/")[2]: entry["modification_time"] for entry in found}

    before = archives()
    assert len(before) >= 2  # those of earlier environments stay
    submit_options({}, "client", [])
    assert "once" not in capsys.readouterr().err
    assert archives() == before
    assert not [name for name in fs.find(staging) if name.endswith(".draft")]


def test_nodes_unpack_python_with_the_permissions_of_yarn(chain: Chain, cluster: hadoop.Cluster) -> None:
    """Everybody may read and run what is public; the cluster's nodes may set this without Hadoop's native library."""
    (launcher, *_) = cluster.state.glob("nodemanager-*/local/filecache/*/environment-*/bin/python")
    folder = launcher.parents[1] / "lib"
    assert oct(launcher.stat().st_mode)[-3:] == "555"
    assert oct(folder.stat().st_mode)[-3:] == "755"
    configured = (cluster.state / "nodemanager-1" / "conf" / "yarn-site.xml").read_text()
    assert ("JavaPermissions" in configured) == (hadoop.find_java() / "bin" / "javac").exists()


@pytest.mark.parametrize(
    ("conf_dir", "message"),
    [("", "HADOOP_CONF_DIR is not set"), ("empty", "lacks core-site.xml or yarn-site.xml")],
)
def test_a_missing_configuration_is_told(
    conf_dir: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segpipe.launch.yarn import submit_options

    if conf_dir:
        (tmp_path / conf_dir).mkdir()
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path / conf_dir) if conf_dir else "")
    with pytest.raises(UsageError, match=message):
        submit_options({}, "client", [])


def test_a_url_that_needs_the_configuration_says_so(tmp_path: Path) -> None:
    environment = os.environ | {"HADOOP_CONF_DIR": ""}
    words = ("--profile", "yarn", "restore", "--warehouse", "hdfs:///w", "--scan", "s", "--output", str(tmp_path))
    done = subprocess.run(
        [hadoop.ROOT / "spark-submit.sh", *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "HADOOP_CONF_DIR" in line
