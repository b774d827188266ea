"""The parts of the demo that its own run does not show."""

import io
import math
import webbrowser
from pathlib import Path

import pytest

from jobs.demo import another_folder_helps, filled_rule, folder_of, open_report, train_settings
from segpipe.errors import ModelError
from segpipe.settings import DemoSettings
from segpipe.trainers.plan import check_settings

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


@pytest.mark.parametrize("count", [6, 7, 12, 20, 24, 60])
def test_the_demo_s_splits_are_as_large_as_their_shares(count: int) -> None:
    subjects = {f"Synthetic_00_{number:03d}" for number in range(count)}
    rule = filled_rule(subjects, "segpipe", SHARES["train"], SHARES["validation"])
    sizes = rule.sizes(subjects)
    assert sum(sizes.values()) == count
    assert all(sizes[split] >= max(1, math.floor(share * count)) for split, share in SHARES.items())


def test_the_salt_that_was_asked_for_is_kept_where_it_fits_and_where_none_does() -> None:
    subjects = {f"s{number}" for number in range(200)}
    asked = filled_rule(subjects, "mine-3", 0.5, 0.2)
    again = filled_rule(subjects, asked.salt, 0.5, 0.2)
    assert again == asked
    assert filled_rule({"one", "two"}, "mine", 0.7, 0.15).salt == "mine"


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8, 20])
def test_any_number_of_workers_shares_the_demo_s_batch(workers: int) -> None:
    settings = train_settings(DemoSettings(workers=workers), "w", "c", "m")
    check_settings(settings)
    assert max(workers, 6) <= settings.batch_size <= max(workers, 10)


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


class Terminal(io.StringIO):
    """Where a person sits."""

    def isatty(self) -> bool:
        return True


def test_the_report_is_shown_where_it_stands_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("DISPLAY", ":0")
    assert open_report(str(tmp_path / "report.html"))
    assert not open_report("hdfs://cluster/demo/report.html")
    assert opened == [(tmp_path / "report.html").as_uri()]
