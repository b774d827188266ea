"""A generated archive is the same whoever writes it, and wherever."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.pipelines.generated import write_archive
from segpipe.pipelines.progress import silent
from segpipe.readers.generate import write_brats

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SHAPE = (8, 24, 20)


def test_scans_below_a_file_url_are_those_of_its_path(spark: SparkSession, tmp_path: Path) -> None:
    write_brats(tmp_path / "alone", 2, 3, SHAPE)
    for _ in range(2):  # what is there stays
        write_archive(spark, f"file://{tmp_path}/by spark", 2, 3, SHAPE, silent)
    written = {path.relative_to(tmp_path / "by spark"): path for path in (tmp_path / "by spark").rglob("*.gz")}
    assert {name: path.read_bytes() for name, path in written.items()} == {
        path.relative_to(tmp_path / "alone"): path.read_bytes() for path in (tmp_path / "alone").rglob("*.gz")
    }
