"""A tiny cohort in tables, and settings that train on it in seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segpipe.settings import CompactSettings, IngestSettings, TrainSettings
from tests.warehouse.earlier import unsealed

TINY = {"filters": 4, "depth": 1, "batch_size": 12, "steps_per_epoch": 3, "epochs": 2, "retries": 0}


@pytest.fixture(scope="session")
def tables(spark, glioma_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A warehouse with cohort `tiny`: six generated subjects in row groups of about five slices."""
    from segpipe.pipelines.ingest import ingest
    from segpipe.warehouse.runs import record_run
    from segpipe.warehouse.store import Store

    url = str(tmp_path_factory.mktemp("warehouse"))
    source = IngestSettings(source=str(glioma_archive), warehouse=url, cohort="tiny")
    with record_run(Store(url), "ingest", source) as run:
        ingest(spark, source, run)
    return url


def with_column(tables: str, target: Path, column: str, change: Callable[[pa.Table], pa.Array]) -> str:
    """A copy of the tables in which `change` has given a column of `slices` new cells, row group by row group."""
    shutil.copytree(tables, target)
    for path in (target / "slices").glob("*.parquet"):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        place = schema.get_field_index(column)
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
        with pq.ParquetWriter(path, unsealed(schema)) as writer:
            for group in groups:
                writer.write_table(group.set_column(place, schema.field(place), change(group)))
    return str(target)


def merge(tables: str) -> None:
    """Make one part of the two or more of cohort `tiny`, as `compact` does."""
    from segpipe.pipelines.compact import compact_with, merge_part
    from segpipe.warehouse.runs import record_run
    from segpipe.warehouse.store import Store

    assert len(Store(tables).parts("slices")) > 1
    chosen = CompactSettings(warehouse=tables)
    with record_run(None, "compact", chosen) as run:
        compact_with(lambda tasks, fence: [merge_part(tables, task, fence) for task in tasks], chosen, run)
    assert len(Store(tables).parts("slices")) == 1


@pytest.fixture
def settings(tables: str, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Tiny settings; keyword arguments replace some."""

    def make(**changes: Any) -> TrainSettings:
        base = {"warehouse": tables, "cohort": "tiny", "model": str(tmp_path / "model"), "trainer": "local"}
        return TrainSettings(**{**base, **TINY, **changes})

    return make
