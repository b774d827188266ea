"""Python workers are forked from a process that has imported TensorFlow for all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow


def _parent(_: int) -> int:
    return os.getppid()


def test_workers_are_forked_with_tensorflow_loaded_and_unused(spark: SparkSession) -> None:
    (parent,) = set(spark.sparkContext.parallelize(range(2), 2).map(_parent).collect())
    process = Path(f"/proc/{parent}")
    assert b"segpipe.trainers.forkserver" in (process / "cmdline").read_bytes()
    assert "libtensorflow_framework" in (process / "maps").read_text()
    names = {(thread / "comm").read_text().strip() for thread in (process / "task").iterdir()}
    assert not [name for name in names if name.startswith("tf_")], "TensorFlow with threads cannot be forked"
