"""A cohort whose split rule asks for no validation: all its patients may be trained on."""

from pathlib import Path

import pytest

from segpipe.pipelines.ingest import ingest
from segpipe.settings import IngestSettings
from segpipe.storage.model_directory import read_history
from segpipe.trainers import train
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store


@pytest.fixture
def all_train(spark, glioma_archive: Path, tmp_path: Path) -> str:
    url = str(tmp_path / "all")
    source = IngestSettings(
        source=str(glioma_archive), warehouse=url, cohort="tiny", train_fraction=1.0, validation_fraction=0.0
    )
    with record_run(Store(url), "ingest", source) as run:
        ingest(spark, source, run)
    return url


@pytest.mark.parametrize(("trainer", "workers"), [("local", 1), pytest.param("orca", 2, marks=pytest.mark.long)])
def test_every_epoch_is_done_and_the_last_is_kept(spark, settings, all_train: str, trainer: str, workers: int) -> None:
    chosen = settings(warehouse=all_train, patience=1, trainer=trainer, workers=workers)
    with record_run(None, "train", chosen) as run:
        bundle = train(chosen, spark, run)
    assert bundle.subjects == {"train": 6, "validation": 0}
    assert bundle.metrics["epoch"] == chosen.epochs == len(read_history(chosen.model))
    assert set(bundle.metrics["validation_dice"].values()) == {None}
