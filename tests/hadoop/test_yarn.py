"""The jobs on YARN, from hdfs:// to hdfs://, beside the same jobs in local mode: the same tables, row for row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from segpipe.models.bundle import Bundle
from segpipe.warehouse import filesystem as files
from segpipe.warehouse.store import Warehouse
from tools.hadoop import cluster as hadoop

pytestmark = [pytest.mark.hadoop, pytest.mark.slow, pytest.mark.timeout(1200)]
NETWORK = ["--epochs", "1", "--steps-per-epoch", "2", "--filters", "4", "--depth", "2", "--batch-size", "4"]
PER_RUN = ("run_id", "fingerprint")


@dataclass(frozen=True)
class Chain:
    """Where the jobs of this module read and write."""

    source: Path
    folder: str
    local: Path

    @property
    def warehouse(self) -> str:
        return f"{self.folder}/warehouse"


def _submit(*words: str) -> str:
    """Run spark-submit.sh and give its standard output; a failure shows all it said."""
    done = subprocess.run(
        [hadoop.ROOT / "spark-submit.sh", *words], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _yarn(*words: str, mode: str = "client") -> str:
    return _submit("--profile", "yarn", "--deploy-mode", mode, *words)


def _nodes_of_last_job(cluster: hadoop.Cluster, name: str) -> set[str]:
    """The node managers on which executors of the newest application of that name ran."""
    with urllib.request.urlopen(f"{cluster.web('resourcemanager')}/ws/v1/cluster/apps") as answer:
        apps = [app for app in json.load(answer)["apps"]["app"] if app["name"] == name]
    last = max(apps, key=lambda app: app["startedTime"])["id"]
    return {
        f"nodemanager-{worker}"
        for worker in hadoop.WORKERS
        if list((cluster.state / f"nodemanager-{worker}" / "logs" / last).glob("container_*"))
    }


def _rows(warehouse: str, table: str, *by: str) -> pa.Table:
    found = Warehouse(warehouse).table(table).to_table()
    found = found.drop_columns([name for name in PER_RUN if name in found.column_names])
    return found.sort_by([(name, "ascending") for name in by])


def _without_times(scans: pa.Table) -> list[dict[str, object]]:
    """Rows of `scans` without the times at which the copies of the source files were made."""
    rows = scans.to_pylist()
    for row in rows:
        for file in row["files"]:
            del file["modified"]
    return rows


def _put(source: Path, url: str) -> None:
    fs, folder = files.filesystem(url)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = files.join(folder, *path.relative_to(source).parts)
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(target, path.read_bytes())


def _get(url: str, target: Path) -> None:
    fs, folder = files.filesystem(url)
    for path in fs.find(folder):
        local = target / Path(path).relative_to(folder)
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(fs.cat_file(path))


@pytest.fixture(scope="module")
def chain(cluster: hadoop.Cluster, glioma_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A cohort ingested on YARN in client mode, and by local mode."""
    local = tmp_path_factory.mktemp("yarn")
    folder = f"{cluster.file_system}/tests/{local.name}-{os.getpid()}"
    _put(glioma_archive, f"{folder}/source")
    _yarn("ingest", "--source", f"{folder}/source", "--warehouse", f"{folder}/warehouse", "--cohort", "glioma")
    _submit("ingest", "--source", str(glioma_archive), "--warehouse", str(local / "warehouse"), "--cohort", "glioma")
    return Chain(glioma_archive, folder, local)


@pytest.fixture(scope="module")
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
    _yarn("train", *words, *NETWORK, mode="cluster")
    _yarn("export", "--model", model)
    return model


def test_ingest_gives_the_tables_of_local_mode(chain: Chain) -> None:
    theirs, ours = chain.warehouse, str(chain.local / "warehouse")
    assert _rows(theirs, "slices", "scan_id", "slice_index").equals(_rows(ours, "slices", "scan_id", "slice_index"))
    assert _without_times(_rows(theirs, "scans", "scan_id")) == _without_times(_rows(ours, "scans", "scan_id"))
    (run,) = Warehouse(theirs).table("runs").to_table().to_pylist()
    assert (run["job"], run["outcome"]) == ("ingest", "done")


def test_ingest_again_in_cluster_mode_does_nothing_twice(chain: Chain) -> None:
    before = _rows(chain.warehouse, "scans", "scan_id")
    words = ("--source", f"{chain.folder}/source", "--warehouse", chain.warehouse, "--cohort", "glioma")
    _yarn("ingest", *words, mode="cluster")
    assert _rows(chain.warehouse, "scans", "scan_id").equals(before)
    runs = Warehouse(chain.warehouse).table("runs").to_table().sort_by("started").to_pylist()
    assert dict(runs[-1]["counts"])["scans_skipped"] == 6


def test_orca_trains_on_both_nodes(chain: Chain, cluster: hadoop.Cluster, orca_model: str) -> None:
    assert _nodes_of_last_job(cluster, "segpipe train") == {"nodemanager-1", "nodemanager-2"}
    Bundle.load(orca_model).verify()


def test_horovod_trains_on_both_nodes(chain: Chain, cluster: hadoop.Cluster) -> None:
    pytest.importorskip("horovod")
    model = f"{chain.folder}/horovod"
    words = ["--warehouse", chain.warehouse, "--cohort", "glioma", "--model", model, "--trainer", "horovod"]
    _yarn("train", *words, "--workers", "2", *NETWORK)
    assert _nodes_of_last_job(cluster, "segpipe train") == {"nodemanager-1", "nodemanager-2"}
    Bundle.load(model).verify()


def test_segment_and_evaluate_give_the_tables_of_local_mode(chain: Chain, orca_model: str) -> None:
    _yarn("segment", "--warehouse", chain.warehouse, "--cohort", "glioma", "--model", orca_model, mode="cluster")
    said = _yarn(
        "evaluate", "--warehouse", chain.warehouse, "--cohort", "glioma", "--model", orca_model, "--split", "all"
    )
    assert "whole_tumour" in said

    ours, model = str(chain.local / "warehouse"), chain.local / "orca"
    _get(orca_model, model)
    _submit("segment", "--warehouse", ours, "--cohort", "glioma", "--model", str(model))
    for table, by in (("predictions", ("scan_id", "slice_index")), ("segmentations", ("scan_id", "region"))):
        assert _rows(chain.warehouse, table, *by).equals(_rows(ours, table, *by))


def test_what_nodes_need_is_put_on_hdfs_once(chain: Chain, cluster: hadoop.Cluster) -> None:
    from segpipe.spark.yarn import hadoop_settings, staging_folder

    fs, staging = files.filesystem(staging_folder(hadoop_settings()))
    before = {entry["name"]: entry["modification_time"] for entry in fs.ls(staging)}
    done = subprocess.run(
        [sys.executable, "-m", "segpipe.spark.yarn"],
        cwd=hadoop.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "once" not in done.stderr
    archives = {entry["name"]: entry["modification_time"] for entry in fs.ls(staging) if entry["name"].endswith(".gz")}
    assert archives == {name: changed for name, changed in before.items() if name.endswith(".gz")}
    assert not [name for name in fs.find(staging) if name.endswith(".draft")]


@pytest.mark.parametrize(
    ("conf_dir", "message"),
    [("", "HADOOP_CONF_DIR is not set"), ("empty", "lacks core-site.xml or yarn-site.xml")],
)
def test_a_missing_configuration_is_one_line(conf_dir: str, message: str, tmp_path: Path) -> None:
    if conf_dir:
        (tmp_path / conf_dir).mkdir()
    environment = os.environ | {"HADOOP_CONF_DIR": str(tmp_path / conf_dir) if conf_dir else ""}
    environment.pop("YARN_CONF_DIR", None)
    done = subprocess.run(
        [sys.executable, "-m", "segpipe.spark.yarn"],
        cwd=hadoop.ROOT, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line


def test_a_url_that_needs_the_configuration_says_so(tmp_path: Path) -> None:
    environment = os.environ | {"HADOOP_CONF_DIR": ""}
    words = ("--profile", "yarn", "restore", "--warehouse", "hdfs:///w", "--scan", "s", "--output", str(tmp_path))
    done = subprocess.run(
        [hadoop.ROOT / "spark-submit.sh", *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "HADOOP_CONF_DIR" in line
