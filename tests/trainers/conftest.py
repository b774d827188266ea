"""A tiny cohort in tables, and settings that train on it in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segpipe.settings import IngestSettings, TrainSettings

TINY = {"filters": 4, "depth": 2, "batch_size": 12, "steps_per_epoch": 3, "epochs": 2, "retries": 0}


@pytest.fixture(scope="session")
def tables(spark, glioma_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A warehouse with cohort `tiny`: six generated subjects in row groups of about five slices."""
    from segpipe.spark.ingest import ingest
    from segpipe.warehouse.runs import record_run
    from segpipe.warehouse.store import Warehouse

    url = str(tmp_path_factory.mktemp("warehouse"))
    source = IngestSettings(source=str(glioma_archive), warehouse=url, cohort="tiny")
    with record_run(Warehouse(url), "ingest", source) as run:
        ingest(spark, source, run)
    return url


@pytest.fixture
def settings(tables: str, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Tiny settings; keyword arguments replace some."""

    def make(**changes: Any) -> TrainSettings:
        base = {"warehouse": tables, "cohort": "tiny", "model": str(tmp_path / "model"), "trainer": "local"}
        return TrainSettings(**{**base, **TINY, **changes})

    return make
