"""Listing with helpers, which are other processes, gives what listing alone gives, also where they are gone."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from segpipe.readers import folders, sweep
from segpipe.readers.archive import Rejected, walk, walk_below
from segpipe.readers.entries import Row

pytestmark = pytest.mark.process
NAMES = (
    "P1",
    "sub-02",
    "..b",
    ".hidden",
    "a b (1)",
    "=cmd",
    "Mu\u0308ller",
    "odd\n",
    b"\xff\xfe",
    "t1.nii.gz",
    "x" * 99,
)
Seen = tuple[dict[str, list[Row]], list[Rejected], Counter[str]]


def archive(root: Path, seed: int) -> None:
    """Folders in folders with files, links and pipes, some of them with names that are refused."""
    chance = random.Random(seed)
    found = [os.fsencode(root)]
    for number in range(70):
        above = chance.choice(found)
        path = os.path.join(above, os.fsencode(chance.choice(NAMES)) + b"%d" % number)
        kind = chance.randrange(6)
        if kind < 3:
            os.mkdir(path)
            found.append(path)
        elif kind == 3:
            os.symlink(chance.choice([b"/etc/hostname", b"nowhere", chance.choice(found)]), path)
        elif kind == 4:
            os.mkfifo(path)
        if kind != 3:
            Path(os.fsdecode(path) + "_t1.nii").write_bytes(b"x" * number)


def listed(root: Path) -> Seen:
    hidden: Counter[str] = Counter()
    entries, rejected = walk(LocalFileSystem(), str(root), hidden=hidden)
    return entries.folders, sorted(rejected, key=lambda one: one.paths), hidden


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> list[sweep._Helper]:
    """The helpers that are started, two for three folders, whatever the machine; each is waited for in its turn."""
    for name, count in (("_MANY", 3), ("_SHARE", 2), ("_OWN", 1)):
        monkeypatch.setattr(sweep, name, count)
    monkeypatch.setattr(sweep._Helper, "is_ready", lambda self: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(3))
    started: list[sweep._Helper] = []
    start = sweep._Helper.__init__

    def watched(self: sweep._Helper, base: str) -> None:
        start(self, base)
        started.append(self)

    monkeypatch.setattr(sweep._Helper, "__init__", watched)
    return started


@pytest.mark.parametrize("seed", range(3))
def test_helpers_change_nothing(
    tmp_path: Path, seed: int, helpers: list[sweep._Helper], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path, seed)
    answers: list[list[folders.Inside]] = []
    answer = sweep._Helper.answer
    monkeypatch.setattr(sweep._Helper, "answer", lambda self: answers.append([*answer(self)]) or answers[-1])
    helped = listed(tmp_path)
    assert len(helpers) == 2
    assert sum(map(len, answers)) > 5
    assert all(helper._process.returncode is not None for helper in helpers)
    monkeypatch.setattr(sweep, "_MANY", 10_000)
    assert listed(tmp_path) == helped
    assert len(helpers) == 2


def test_nobody_waits_for_a_slow_helper(
    tmp_path: Path, helpers: list[sweep._Helper], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"P{number}").mkdir()
    monkeypatch.setattr(sweep._Helper, "is_ready", lambda self: not self.asked)
    left = [f"P{number}/" for number in range(20)]
    listing = sweep.swept(f"{tmp_path}/", left, alone=False)
    own = [next(listing)[0] for _ in range(16)]
    assert not left
    assert [helper.asked for helper in helpers] == [["P18/", "P19/"], ["P16/", "P17/"]]
    theirs = [found[0] for found in listing]
    assert sorted(own + theirs) == sorted(f"P{number}/" for number in range(20))


@pytest.mark.parametrize("gone", ["never there", "not a program", "killed"])
def test_a_helper_that_is_gone_costs_nothing(
    tmp_path: Path, gone: str, helpers: list[sweep._Helper], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path, 5)
    wanted = listed(tmp_path)
    if gone == "never there":
        monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    elif gone == "not a program":
        monkeypatch.setattr(folders, "__file__", str(tmp_path / "none"))
    else:
        ask, asked = sweep._Helper.ask, Counter[int]()

        def deadly(self: sweep._Helper, some: list[str]) -> None:
            asked[id(self)] += 1
            if asked[id(self)] == 3:
                self._process.kill()
            ask(self, some)

        monkeypatch.setattr(sweep._Helper, "ask", deadly)
    assert listed(tmp_path) == wanted


def test_a_folder_that_cannot_be_listed_is_told_by_a_helper(tmp_path: Path, helpers: list[sweep._Helper]) -> None:
    for number in range(6):
        (tmp_path / f"P{number}").mkdir()
    there = f"{tmp_path}/"
    left = [f"P{number}/" for number in range(6)] + [f"gone{number}/" for number in range(6)]
    found = {folder: failed for folder, _, _, _, failed in sweep.swept(there, left, alone=False)}
    assert found == {f"P{n}/": "" for n in range(6)} | {f"gone{n}/": "FileNotFoundError" for n in range(6)}
    assert helpers


def test_tasks_of_spark_start_no_helpers(tmp_path: Path, helpers: list[sweep._Helper]) -> None:
    archive(tmp_path, 6)
    assert walk_below(LocalFileSystem(), str(tmp_path), "", True)[0]
    assert not helpers
