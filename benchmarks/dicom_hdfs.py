"""What an index of a DICOM archive on HDFS asks of the name node, beside one listing a folder and one opening a file.

The cluster is a real one on loopback; it is started, and ended again, unless it is up. Calls are those that the name
node has counted by method (its RpcDetailedActivity), so that other work on the machine changes none.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.dicom_index import instances
from segpipe.pipelines.index import IndexJob, dicom_listing, gather
from segpipe.readers.series import Options
from segpipe.storage import url_to_fs

if TYPE_CHECKING:
    from tools.hadoop.cluster import Cluster

INSTANCES = int(os.environ.get("BENCH_INSTANCES", "100000"))
WRITERS = 32
_MARK = "GetAclStatus"  # a call that nothing else here makes
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.5
# What data nodes and Spark's own clients ask, whatever is indexed.
_NOT_OURS = ("SendHeartbeat", "BlockReport", "BlockReceivedAndDeleted", "VersionRequest", "RegisterDatanode")


def main() -> None:
    """Write a generated archive to HDFS, index it twice, and count the name node's calls of each run."""
    from segpipe.launch.session import build
    from tools.hadoop import cluster as hadoop

    was_up = hadoop.is_up()
    cluster = hadoop.up()
    os.environ["HADOOP_CONF_DIR"] = str(cluster.conf)
    cores = len(os.sched_getaffinity(0))
    spark = build("benchmark dicom-hdfs", master=f"local[{cores}]", extra_conf={"spark.ui.enabled": "false"})
    source = f"{cluster.file_system}/benchmarks/{uuid.uuid4().hex}"
    try:
        folders = put(source, INSTANCES)
        with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
            job = IndexJob(source, f"{scratch}/w", "bench", b"a secret of the benchmark", {})
            for name in ("first run", "second run with nothing new"):
                before, start = calls(cluster), time.perf_counter()
                found = gather(spark, job, "bench")
                seconds = time.perf_counter() - start
                asked = calls(cluster) - before
                assert found.files == INSTANCES
                assert dicom_listing(job, found, Options()).series
                each = ", ".join(f"{count} {method}" for method, count in asked.most_common())
                print(f"{name}: {seconds:.1f} s, {found.opened} headers, name node: {each}", flush=True)
                if found.opened:
                    first = asked
    finally:
        fs, path = url_to_fs(source)
        fs.rm(path, recursive=True)
        spark.stop()
        if not was_up:
            hadoop.down()
    report("dicom-hdfs", first.total(), folders + INSTANCES, "calls", less_is_better=True)


def put(source: str, count: int) -> int:
    """Write generated instances to HDFS; gives the number of folders."""
    fs, root = url_to_fs(source)
    folders = {root}

    def write(one: tuple[str, bytes]) -> None:
        fs.pipe_file(f"{root}/{one[0]}", one[1])

    start = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        for part in _chunks(count):
            list(pool.map(write, part))
            for path, _ in part:
                parents = path.split("/")[:-1]
                folders |= {"/".join([root, *parents[: depth + 1]]) for depth in range(len(parents))}
    print(f"{count} files written in {time.perf_counter() - start:.0f} s", flush=True)
    return len(folders)


def _chunks(count: int, size: int = 2000) -> list[list[tuple[str, bytes]]]:
    found = list(instances(count))
    return [found[start : start + size] for start in range(0, len(found), size)]


def calls(cluster: Cluster) -> Counter[str]:
    """How often each method of the name node has been called, without what its data nodes ask of it.

    The name node counts at once and tells its counts every ten seconds, so a call of another kind is made, and the
    counts are those in which it is first told. RuntimeError if it is not told within a minute.
    """
    mark = _counts(cluster)[_MARK] + 1
    fs, _ = url_to_fs(cluster.file_system)
    fs.client.inner.get_acl_status("/")
    end = time.monotonic() + _PATIENCE_SECONDS
    while (found := _counts(cluster))[_MARK] < mark:
        if time.monotonic() > end:
            raise RuntimeError(
                f"the name node at {cluster.web('namenode')} has not told a call of {_PATIENCE_SECONDS:.0f} s ago; "
                f"see {cluster.log('namenode')}"
            )
        time.sleep(_POLL_SECONDS)
    return Counter({name: count for name, count in found.items() if count and name not in (_MARK, *_NOT_OURS)})


def _counts(cluster: Cluster) -> Counter[str]:
    """The calls of each method that the name node tells at present."""
    bean = f"Hadoop:service=NameNode,name=RpcDetailedActivityForPort{cluster.ports['namenode.rpc']}"
    with urllib.request.urlopen(f"{cluster.web('namenode')}/jmx?qry={bean}", timeout=30) as answer:
        (found,) = json.load(answer)["beans"]
    return Counter({name.removesuffix("NumOps"): n for name, n in found.items() if name.endswith("NumOps")})
