"""Inputs that kill every worker are given up one by one, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from segpipe.errors import BadInput
from segpipe.pipelines.attempts import DEADLY, LOCAL_TRIES, Watch, each
from segpipe.warehouse.store import Store
from tests.pipelines import deadly
from tests.pipelines.deadly import die

ROOT = Path(__file__).resolve().parents[2]
FOUND = [
    f"Item {item} killed {DEADLY} workers, most likely because memory ran out" if item in deadly.DEADLY else str(item)
    for item in deadly.ITEMS
]


def test_inputs_that_kill_their_workers_are_given_up_and_all_others_done(spark: SparkSession, tmp_path: Path) -> None:
    assert len(deadly.DEADLY) * DEADLY > LOCAL_TRIES
    assert deadly.among_others(spark, str(tmp_path)) == FOUND
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("master", ["local[2,4]", "local-cluster[2,1,1024]"])
def test_they_are_where_spark_itself_tries_again(master: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.pipelines.deadly", master, str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    assert json.loads(told.stdout.splitlines()[-1]) == FOUND


def test_what_others_were_at_when_a_worker_died_is_not_to_blame(spark: SparkSession, tmp_path: Path) -> None:
    """The one worker dies only while the other is at its input, and Spark ends that one too."""
    begun, started, given_up = tmp_path / "begun", tmp_path / "started", tmp_path / "given up"
    begun.mkdir()
    started.mkdir()

    def work(item: str, watch: Watch) -> str:
        try:
            watch.enter(item, item)
        except BadInput as error:
            given_up.touch()
            return error.problem
        if item == "deadly":
            while not list(begun.iterdir()):
                time.sleep(0.01)
            for path in begun.iterdir():
                path.unlink()
            die()
        (begun / str(os.getpid())).touch()
        (started / str(os.getpid())).touch()
        number = len(list(started.iterdir()))
        while not (given_up.exists() and number == DEADLY + 2):  # all before the last are ended by Spark
            time.sleep(0.01)
        return "done"

    told, other = each(spark, Store(str(tmp_path / "w")), "r1", ["deadly", "long"], work, tasks=2)
    assert (told.partition(",")[0], other) == (f"deadly killed {DEADLY} workers", "done")


def test_workers_that_die_before_they_are_at_any_input_end_the_run(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "died").mkdir()

    def work(item: int, watch: Watch) -> None:
        (tmp_path / "died" / str(os.getpid())).touch()
        die()

    with pytest.raises(Exception, match="worker exited unexpectedly"):
        each(spark, Store(str(tmp_path / "w")), "r1", [1], work)
    assert len(list((tmp_path / "died").iterdir())) == LOCAL_TRIES
