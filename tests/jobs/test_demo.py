"""The parts of the demo that its own run does not show."""

from pathlib import Path

import pytest

from jobs.demo import another_folder_helps, folder_of, train_settings
from segpipe.errors import ModelError
from segpipe.settings import DemoSettings
from segpipe.trainers.plan import check_settings


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8, 20])
def test_any_number_of_workers_shares_the_demo_s_batch(workers: int) -> None:
    settings = train_settings(DemoSettings(workers=workers), "w", "c", "m")
    check_settings(settings)
    assert max(workers, 6) <= settings.batch_size <= max(workers, 10)


def test_the_network_is_as_large_as_asked() -> None:
    settings = train_settings(DemoSettings(filters=4, depth=2), "w", "c", "m")
    assert (settings.filters, settings.depth) == (4, 2)


def test_each_source_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brats").mkdir()
    monkeypatch.chdir(tmp_path / "brats")
    assert folder_of(DemoSettings()) == "demo"
    assert folder_of(DemoSettings(source=".")) == folder_of(DemoSettings(source="/other/brats/")) == "demo-brats"
    assert folder_of(DemoSettings(source="hdfs://archive/a b.csv")) == "demo-a-b.csv"
    assert folder_of(DemoSettings(source="x", warehouse="hdfs://archive/w/")) == "hdfs://archive/w"


def test_a_folder_with_another_training_is_refused_with_an_option_that_the_demo_has() -> None:
    wanted = "^Model directory d holds a training on other scans: give another --warehouse$"
    with pytest.raises(ModelError, match=wanted), another_folder_helps():
        raise ModelError("Model directory d holds a training on other scans", "give another --model")
