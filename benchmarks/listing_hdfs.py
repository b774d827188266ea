"""Listing an archive in BraTS layout on HDFS and telling its scans, beside listing each folder, one after the other.

The cluster is a real one on loopback; it is started, and ended again, unless it is up. What the name node is asked is
its own count. 20,000 files in 4,000 folders on a busy machine: 1.001 calls a folder, and 0.86 of the reference (3.2 s
beside 2.8 s; 2.0 to 3.1 s beside 2.3 s on another day). Before folders were asked for eight at a time it was 8.9 s or
more.
"""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

from benchmarks import report
from benchmarks.dicom_hdfs import WRITERS, calls
from benchmarks.listing import ROLES, ROUNDS, seconds
from segpipe.storage import url_to_fs

CASES = int(os.environ.get("BENCH_CASES", "4000"))


def main() -> None:
    """Make the archive, list it both ways, and report files a second; calls of the name node a folder are printed."""
    from segpipe.readers.sources import find
    from tools.hadoop import cluster as hadoop

    was_up = hadoop.is_up()
    cluster = hadoop.up()
    os.environ["HADOOP_CONF_DIR"] = str(cluster.conf)
    source = f"{cluster.file_system}/benchmarks/{uuid.uuid4().hex}"
    fs, root = url_to_fs(source)
    try:
        cases = [f"{root}/BraTS2021_{number:05d}" for number in range(CASES)]
        paths = [f"{case}/{case.rpartition('/')[2]}_{role}.nii.gz" for case in cases for role in ROLES]
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(fs.touch, paths))
        before = calls(cluster)
        assert len(find(source).scans) == CASES
        asked = (calls(cluster) - before).total()
        print(f"calls of the name node: {asked / (CASES + 1):.3f} a folder")
        ours = min(seconds(lambda: find(source)) for _ in range(ROUNDS))
        theirs = min(seconds(lambda: [fs.ls(case, detail=True) for case in cases]) for _ in range(ROUNDS))
    finally:
        fs.rm(root, recursive=True)
        if not was_up:
            hadoop.down()
    report("listing-hdfs", len(paths) / ours, len(paths) / theirs, "files/s")
