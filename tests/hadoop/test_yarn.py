"""The jobs on YARN, from hdfs:// to hdfs://, beside the same jobs in local mode: the same tables, row for row."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import jobs.segment
from segpipe.cli import Context
from segpipe.errors import UsageError
from segpipe.models.bundle import Bundle
from segpipe.settings import SegmentSettings
from segpipe.storage import filesystem as files
from segpipe.warehouse.store import Warehouse
from tests.hadoop.yarn_jobs import NETWORK, Chain, get, nodes_of_last_job, rows, without_times, yarn
from tools.hadoop import cluster as hadoop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.hadoop, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_ingest_gives_the_tables_of_local_mode(chain: Chain) -> None:
    theirs, ours = chain.warehouse, str(chain.local / "warehouse")
    assert rows(theirs, "slices", "scan_id", "slice_index").equals(rows(ours, "slices", "scan_id", "slice_index"))
    assert without_times(rows(theirs, "scans", "scan_id")) == without_times(rows(ours, "scans", "scan_id"))
    first, *_ = Warehouse(theirs).table("runs").to_table().sort_by("started").to_pylist()  # other tests add runs
    assert (first["job"], first["outcome"]) == ("ingest", "done")


def test_ingest_again_in_cluster_mode_does_nothing_twice(chain: Chain) -> None:
    before = rows(chain.warehouse, "scans", "scan_id")
    words = ("--source", f"{chain.folder}/source", "--warehouse", chain.warehouse, "--cohort", "glioma")
    yarn("ingest", *words, mode="cluster")
    assert rows(chain.warehouse, "scans", "scan_id").equals(before)
    runs = Warehouse(chain.warehouse).table("runs").to_table().sort_by("started").to_pylist()
    assert dict(runs[-1]["counts"])["scans_skipped"] == 6


def test_orca_trains_on_both_nodes(chain: Chain, cluster: hadoop.Cluster, orca_model: str) -> None:
    assert nodes_of_last_job(cluster, "segpipe train") == {"nodemanager-1", "nodemanager-2"}
    Bundle.load(orca_model).verify()


def test_horovod_trains_on_both_nodes(chain: Chain, cluster: hadoop.Cluster) -> None:
    pytest.importorskip("horovod")
    model = f"{chain.folder}/horovod"
    words = ["--warehouse", chain.warehouse, "--cohort", "glioma", "--model", model, "--trainer", "horovod"]
    yarn("train", *words, "--workers", "2", *NETWORK, executors=2)
    assert nodes_of_last_job(cluster, "segpipe train") == {"nodemanager-1", "nodemanager-2"}
    Bundle.load(model).verify()


def test_segment_and_evaluate_give_the_tables_of_local_mode(chain: Chain, orca_model: str, spark: SparkSession) -> None:
    words = ("segment", "--warehouse", chain.warehouse, "--cohort", "glioma", "--model", orca_model)
    yarn(*words, mode="cluster", executors=2)
    said = yarn(
        "evaluate", "--warehouse", chain.warehouse, "--cohort", "glioma", "--model", orca_model, "--split", "all"
    )
    assert "whole_tumour" in said

    ours, model = str(chain.local / "warehouse"), chain.local / "orca"
    get(orca_model, model)
    jobs.segment.run(SegmentSettings(ours, "glioma", str(model)), Context("segment", spark))
    for table, by in (("predictions", ("scan_id", "slice_index")), ("segmentations", ("scan_id", "region"))):
        assert rows(chain.warehouse, table, *by).equals(rows(ours, table, *by))


def test_restore_gives_the_voxels_and_headers_of_the_source(chain: Chain) -> None:
    (scan_id, *_) = Warehouse(chain.warehouse).table("scans").to_table(columns=["scan_id"])["scan_id"].to_pylist()
    yarn("restore", "--warehouse", chain.warehouse, "--scan", scan_id, "--output", f"{chain.folder}/restored")
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


def test_the_demo_runs_the_whole_chain_from_hdfs_to_hdfs(hdfs_folder: str) -> None:
    small = ("--subjects", "6", "--epochs", "1", "--steps-per-epoch", "2")
    said = yarn("demo", "--warehouse", f"{hdfs_folder}/demo", *small, executors=2)
    assert "mean Dice of whole_tumour on 1 unseen patients" in said
    assert f"report: {hdfs_folder}/demo/report.html" in said
    warehouse = Warehouse(f"{hdfs_folder}/demo/tables")
    runs = warehouse.table("runs").to_table().sort_by("started").to_pylist()
    assert [(run["job"], run["outcome"]) for run in runs] == [
        (job, "done") for job in ("ingest", "train", "export", "segment", "evaluate")
    ]
    subjects = set(warehouse.table("scans").to_table(["subject"])["subject"].to_pylist())
    assert len(subjects) == 6
    assert set(warehouse.table("segmentations").to_table(["subject"])["subject"].to_pylist()) == subjects
    Bundle.load(f"{hdfs_folder}/demo/model").verify()
    fs, page = files.filesystem(f"{hdfs_folder}/demo/report.html")
    text = fs.cat_file(page).decode()
    assert all(subject in text for subject in subjects)


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
