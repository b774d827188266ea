"""`compact` on HDFS: killed between its commit and its tidying up, and beside readers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import segpipe
from segpipe.storage import filesystem as files
from segpipe.warehouse.scan_slices import read_planes
from segpipe.warehouse.store import Store
from tests.warehouse.examples import write_part

pytestmark = pytest.mark.hadoop

SUBJECTS = [f"anna{number}" for number in range(6)]

COMPACT = """
import json, os, signal, sys
from segpipe.pipelines import compact
from segpipe.settings import CompactSettings
from segpipe.warehouse import merges
from segpipe.warehouse.runs import record_run
if sys.argv[2] == "killed":  # when the new part counts, and before the older ones are moved aside
    merges.move_aside = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
url = sys.argv[1]
chosen = CompactSettings(warehouse=url)
with record_run(None, "compact", chosen) as run:
    compact.compact_with(lambda tasks, fence: [compact.merge_part(url, one, fence) for one in tasks], chosen, run)
print(json.dumps(run.counts))
"""


def run_compact(url: str, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMPACT, url, how]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_readers_see_the_same_rows_before_while_and_after_parts_are_merged(hdfs_folder: str) -> None:
    warehouse = Store(hdfs_folder)
    for number, subject in enumerate(SUBJECTS):
        write_part(warehouse, f"c.{number}", [subject], f"r{number}")
    rows = warehouse.scans("c").to_pylist()
    voxels = [read_planes(warehouse, row) for row in rows]
    planned, opened = warehouse.slice_parts("c"), warehouse.table("slices")
    query = "select count(*), count(distinct scan_id), sum(foreground_pixels) from slices"
    (answer,) = segpipe.open_warehouse(hdfs_folder).sql(query).fetchall()
    over = threading.Event()

    def read() -> int:
        """What is asked again and again while others merge, and how often it was."""
        times = 0
        while not over.is_set():
            assert segpipe.open_warehouse(hdfs_folder).sql(query).fetchall() == [answer]
            assert Store(hdfs_folder).scans("c").to_pylist() == rows
            times += 1
        return times

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            assert run_compact(hdfs_folder, "killed").returncode == -9
            assert len(warehouse.files("slices")) == len(warehouse.files("scans")) == len(SUBJECTS) + 1
            assert len(warehouse.parts("scans")) == 1
            done = run_compact(hdfs_folder, "to its end")
        finally:
            over.set()
        assert reader.result() > 1
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problems"] == 0
    for table in ("slices", "scans"):
        assert len(warehouse.files(table)) == 1
        assert len(files.names(warehouse.fs, warehouse.path("_replaced", table))) == len(SUBJECTS)
    for part in planned:  # a job that planned before reads its footers, and a table that was opened its rows, aside
        assert warehouse.slice_part(part.name, [])
    assert opened.to_table().num_rows == answer[0]
    assert warehouse.scans("c").to_pylist() == rows
    for row, planes in zip(rows, voxels, strict=True):
        for name, plane in read_planes(warehouse, row).items():
            np.testing.assert_array_equal(plane, planes[name])
    assert files.names(warehouse.fs, warehouse.path("_staging")) == []
