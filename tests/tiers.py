"""Which tests are quick, which are long, and the proof that a quick one is quick.

* `--quick` runs what needs no Spark, no TensorFlow, no other process and no real scans; a test that starts one of these
  fails. Tests of properties try a quarter of the examples that they try in the gate.
* `long` marks what `make test-all` runs and `make test` does not: another proof of what the gate proves once already,
  or what takes too long for it. docs/testing.md lists both.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hypothesis
import numpy.testing  # noqa: F401  its first import asks `lscpu`, which shall not count for the test that causes it
import pytest

ROOMS_WITH_PROCESSES = frozenset({"hadoop", "jobs", "models", "notebooks", "runtimes", "trainers"})
"""Nearly all of their modules import TensorFlow or start programs, so that a quick run does not even import them."""

SLOW_FIXTURES = frozenset({"spark", "tables", "browser", "cluster", "real_data"})
FORBIDDEN_IMPORTS = frozenset({"tensorflow", "tf_keras", "pyspark", "openvino", "bigdl", "horovod"})
FORBIDDEN_EVENTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"})


def is_ignored(path: Path, root: Path) -> bool:
    """Whether a quick run leaves a file of tests alone without importing it."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return len(parts) > 1 and parts[0] == "tests" and parts[1] in ROOMS_WITH_PROCESSES


def is_quick(item: pytest.Item) -> bool:
    """Whether a test says of itself that it needs no other process: by its fixtures and marks."""
    fixtures = set(getattr(item, "fixturenames", ()))
    marks = ("process", "slow", "long", "hadoop", "real")
    return not fixtures & SLOW_FIXTURES and not any(item.get_closest_marker(mark) for mark in marks)


def examples(number: int) -> int:
    """So many examples of a property, and a quarter of them in a quick run."""
    return number * hypothesis.settings.default.max_examples // 100


class Guard:
    """Fails the quick test that starts a process or imports what takes seconds; an audit hook can never be removed."""

    def __init__(self) -> None:
        self.running: str | None = None
        self.seen: str | None = None
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.running is None:
            return
        name = str(arguments[0]).partition(".")[0] if event == "import" else ""
        if event in FORBIDDEN_EVENTS or (name in FORBIDDEN_IMPORTS and name not in sys.modules):
            self.seen = event if not name else f"import of {name}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        """Watch one test."""
        self.running, self.seen = item.nodeid, None
        try:
            result = yield
        finally:
            self.running = None
        if self.seen is not None:
            pytest.fail(f"this test is no quick one ({self.seen}): give it the mark `process`", pytrace=False)
        return result
