"""Tutorial, how-to and explanation do what they say: their commands and Python snippets run, in the order of the page.

Commands run inside this process, with the Spark of the tests, on small archives. Options that decide how long something
takes are made smaller; all others are taken as they are written.
"""

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

import jobs.demo
import segpipe.settings
from segpipe.cli import Context
from segpipe.cli.options import parse
from tests.docs.test_docs import job_and_options

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
STEP = re.compile(r"(?m)^    (?P<command>\./spark-submit\.sh .*|make demo)$|^```python\n(?P<python>[\s\S]*?)^```$")
PLACES = ("source", "warehouse", "model", "output", "metastore")
QUICK = {"trainer": "local", "epochs": 1}
SMALLER: dict[str, dict[str, Any]] = {
    "ingest": {"split_salt": "segpipe-12"},  # leaves no split of five subjects empty
    "train": {**QUICK, "workers": 1, "filters": 2, "depth": 2, "steps_per_epoch": 2, "batch_size": 4},
    "demo": {**QUICK, "warehouse": "demo", "subjects": 6, "filters": 4, "depth": 2, "steps_per_epoch": 3},
}


class Reader:
    """Follows pages in one folder; what a page defines in Python is known to its later snippets."""

    def __init__(self, spark: SparkSession, folder: Path):
        self.spark = spark
        self.folder = folder
        self.commands: list[str] = []
        self.printed = ""

    def follow(self, page: str) -> dict[str, Any]:
        """Run a page's steps in their order; gives the names that its snippets defined."""
        names: dict[str, Any] = {}
        for step in STEP.finditer((DOCS / page).read_text("utf-8")):
            if step["command"]:
                self.command(step["command"])
            else:
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(step["python"], page, "exec"), names)
                self.printed += printed.getvalue()
        return names

    def command(self, line: str) -> None:
        """Run a command of a page, smaller."""
        if line.startswith("make"):
            line = "./spark-submit.sh demo"
        job, words = job_and_options(shlex.split(line)[1:])
        settings_class = getattr(segpipe.settings, f"{job.capitalize()}Settings")
        as_written = parse(job, settings_class, words)
        settings = self.placed(replace(as_written, **SMALLER.get(job, {})))
        if getattr(settings, "prepare", False):  # each image of a scan takes some seconds
            settings = replace(settings, source=str(self.one_image_of(Path(settings.source))))
        with contextlib.redirect_stdout(io.StringIO()):
            assert not importlib.import_module(f"jobs.{job}").run(settings, Context(job, self.spark))
        self.commands.append(job)

    def one_image_of(self, archive: Path) -> Path:
        """A folder with the FLAIR of an archive's first scan."""
        first = min(path for path in archive.iterdir() if path.is_dir())
        others = shutil.ignore_patterns("*_t1.*", "*_t1ce.*", "*_t2.*", "*_seg.*")
        shutil.copytree(first, self.folder / "first" / first.name, dirs_exist_ok=True, ignore=others)
        return self.folder / "first"

    def placed(self, settings: Any) -> Any:
        """The settings with every place in the folder: the workers of the tests' Spark were started elsewhere."""
        given = {name: getattr(settings, name, None) for name in PLACES}
        return replace(settings, **{name: str(self.folder / place) for name, place in given.items() if place})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPIPE_CONF", str(ROOT / "conf" / "segpipe.toml"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def reader(spark: SparkSession, folder: Path) -> Iterator[Reader]:
    yield Reader(spark, folder)
    importlib.import_module("matplotlib.pyplot").close("all")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)  # it trains
def test_tutorial(reader: Reader, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.demo, "SHAPE", (24, 64, 64))
    names = reader.follow("tutorial.md")
    assert reader.commands == ["demo"]
    assert (folder / "demo" / "report.html").stat().st_size > 100_000
    assert (folder / "worst.png").stat().st_size > 10_000
    assert "<warehouse demo/tables: " in reader.printed
    assert "whole_tumour" in reader.printed
    assert names["scan"].split == "test"
    snippet = re.search(r"(?m)^```python\n([\s\S]*?)^```$", (ROOT / "README.md").read_text("utf-8"))
    assert snippet is not None
    exec(compile(snippet[1], "README.md", "exec"), names)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)  # it trains, and prepares a scan
def test_how_to_pages_one_after_the_other(reader: Reader, folder: Path, glioma_archive: Path) -> None:
    shutil.copytree(glioma_archive, folder / "archive")
    (folder / "archive" / "Synthetic_00_005" / "Synthetic_00_005_t1.nii.gz").write_bytes(b"")
    reader.follow("how-to/own-archive.md")
    assert "empty_file" in reader.printed
    assert (folder / "report.html").stat().st_size > 50_000
    for name in ("first.png", "prediction.nii.gz", "restored/Synthetic_00_000/Synthetic_00_000_t1.nii.gz"):
        assert (folder / name).stat().st_size > 0
    reader.follow("how-to/tune-and-resume.md")
    assert (folder / "curves.png").is_file()
    reader.follow("how-to/compare-models.md")
    assert "dice_other" in reader.printed
    assert "differ" in reader.printed
    reader.follow("how-to/query.md")
    every_job = {"ingest", "train", "export", "segment", "evaluate", "report", "restore", "register", "compact"}
    assert set(reader.commands) == every_job


def test_explanation(reader: Reader, folder: Path) -> None:
    assert reader.follow("explanation.md")
    assert not os.listdir(folder)


def test_every_page_of_the_index_is_there_and_in_it() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "decisions"]
    assert all(f"({page})" in index for page in pages if page != "README.md")


def test_every_page_with_steps_is_followed_here() -> None:
    with_python = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "```python" in path.read_text()}
    followed = set(re.findall(r'"([\w/-]+\.md)"', Path(__file__).read_text("utf-8")))
    assert with_python <= followed
