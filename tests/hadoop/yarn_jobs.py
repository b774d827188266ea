"""What the tests of jobs on YARN share: submitting, and comparing tables."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from segpipe.launch.yarn import hadoop_settings, staging_folder
from segpipe.storage import filesystem as files
from segpipe.warehouse.store import Store
from tools.hadoop import cluster as hadoop

SHORT = ["--epochs", "1", "--steps-per-epoch", "2"]
SMALL = ["--filters", "4", "--depth", "2"]
NETWORK = [*SMALL, "--batch-size", "4"]
COHORT = "demo"
_PROGRESS = ("ingest: ", "segment: ", "segpipe: putting ")
PER_RUN = ("run_id", "fingerprint")


@dataclass(frozen=True)
class Chain:
    """A cohort on YARN and in local mode: where these jobs read and write, and what the demo on YARN said."""

    source: Path
    folder: str
    local: Path
    said: str = ""

    @property
    def warehouse(self) -> str:
        return f"{self.folder}/tables"

    @property
    def local_warehouse(self) -> str:
        return str(self.local / "tables")

    @property
    def model(self) -> str:
        return f"{self.folder}/model"

    @property
    def cohort(self) -> tuple[str, ...]:
        """Options that name the cohort."""
        return "--warehouse", self.warehouse, "--cohort", COHORT


def submit(*words: str, **environment: str) -> str:
    """Run spark-submit.sh and give its standard output; a failure shows all it said."""
    command, env = [hadoop.ROOT / "spark-submit.sh", *words], os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def yarn(*words: str, mode: str = "client", executors: int = 1) -> str:
    """Run a job on YARN and give what it said."""
    return submit("--profile", "yarn", "--deploy-mode", mode, "--num-executors", str(executors), *words)


def started(*words: str) -> subprocess.Popen[str]:
    """A job on YARN, under way on two executors unless `words` say otherwise."""
    command = [hadoop.ROOT / "spark-submit.sh", "--profile", "yarn", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(job: subprocess.Popen[str]) -> str:
    """What a job said that has ended well; a failure shows all of it."""
    out, err = job.communicate()
    assert job.returncode == 0, out + err
    return out


def refused(*words: str) -> str:
    """The one line of a job on YARN that is refused, within a minute."""
    began = time.monotonic()
    job = started("--num-executors", "1", *words)
    out, err = job.communicate()
    assert time.monotonic() - began < 60
    assert (job.returncode, out) == (1, ""), out + err
    (line,) = [line for line in err.splitlines() if not line.startswith(_PROGRESS)]
    return line


def last_application(cluster: hadoop.Cluster, name: str) -> dict[str, str]:
    """What the resource manager tells of the newest application of that name."""
    return max((app for app in applications(cluster) if app["name"] == name), key=lambda app: app["startedTime"])


def applications(cluster: hadoop.Cluster) -> list[dict[str, str]]:
    """What the resource manager tells of all applications."""
    with urllib.request.urlopen(f"{cluster.web('resourcemanager')}/ws/v1/cluster/apps") as answer:
        return (json.load(answer)["apps"] or {"app": []})["app"]


def end(cluster: hadoop.Cluster, application: str) -> None:
    """Have the resource manager kill an application; it takes a moment to be gone."""
    address = f"{cluster.web('resourcemanager')}/ws/v1/cluster/apps/{application}/state"
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(address, b'{"state": "KILLED"}', headers, method="PUT")).close()


def nodes_of_last_job(cluster: hadoop.Cluster, name: str) -> set[str]:
    """The node managers on which executors of the newest application of that name ran."""
    last = last_application(cluster, name)["id"]
    return {
        f"nodemanager-{worker}"
        for worker in hadoop.WORKERS
        if list((cluster.state / f"nodemanager-{worker}" / "logs" / last).glob("container_*"))
    }


def event_log(application: str) -> bytes:
    """Spark's event log of an application that has ended, a line an event."""
    fs, folder = files.filesystem(f"{staging_folder(hadoop_settings())}/events")
    (log,) = [path for path in fs.ls(folder, detail=False) if application in path]
    with pa.CompressedInputStream(pa.BufferReader(fs.cat_file(log)), "zstd") as stream:
        return bytes(stream.read())


def shown_of(cluster: hadoop.Cluster, application: str) -> bytes:
    """What can be read of an application that has ended: its event log, its containers' logs, the daemons' own."""
    logs = [path for path in cluster.state.glob(f"nodemanager-*/logs/{application}/**/*") if path.is_file()]
    assert logs
    daemons = cluster.state.glob("resourcemanager/**/*.log")
    return b"\n".join([event_log(application), *(path.read_bytes() for path in (*logs, *daemons))])


def lost_tasks(application: str) -> int:
    """How many tasks were under way on executors that died, by Spark's event log of an application that has ended."""
    events = [json.loads(line) for line in event_log(application).splitlines()]
    reasons = [event["Task End Reason"]["Reason"] for event in events if event["Event"] == "SparkListenerTaskEnd"]
    return reasons.count("ExecutorLostFailure")


def rows(warehouse: str, table: str, *by: str) -> pa.Table:
    """A table in a fixed order, without what differs from run to run."""
    found = Store(warehouse).table(table).to_table()
    found = found.drop_columns([name for name in PER_RUN if name in found.column_names])
    return found.sort_by([(name, "ascending") for name in by])


def without_times(scans: pa.Table) -> list[dict[str, object]]:
    """Rows of `scans` without the times at which the copies of the source files were made."""
    found = scans.to_pylist()
    for row in found:
        for file in row["files"]:
            del file["modified"]
    return found


def put(source: Path, url: str) -> None:
    """Copy a folder to HDFS."""
    fs, folder = files.filesystem(url)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = files.join(folder, *path.relative_to(source).parts)
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(target, path.read_bytes())


def get(url: str, target: Path) -> None:
    """Copy a folder from HDFS."""
    fs, folder = files.filesystem(url)
    for path in fs.find(folder):
        local = target / Path(path).relative_to(folder)
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(fs.cat_file(path))
