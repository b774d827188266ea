"""Inputs that kill whoever works on them, for tests: SIGKILL, as the kernel sends it where memory runs out.

As a program: MASTER FOLDER. It prints what `among_others` gives on a Spark of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from pyspark.sql import SparkSession

from segpipe.errors import BadInput
from segpipe.pipelines.attempts import Watch, each
from segpipe.warehouse.store import Store

DEADLY = (1, 4, 5)
ITEMS = range(6)


def die() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class In:
    """Calls `work` of a module in a worker, where a function of `inside` dies if its arguments are deadly."""

    module: Any
    work: str
    inside: Any
    name: str
    is_deadly: Callable[..., bool]

    def __call__(self, *arguments: Any) -> Any:
        with self._replaced():
            found = getattr(self.module, self.work)(*arguments)
            return list(found) if isinstance(found, Iterator) else found

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the driver send this to its workers in place of `work`."""
        monkeypatch.setattr(self.module, self.work, self)

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        real = getattr(self.inside, self.name)

        def deadly(*arguments: Any, **options: Any) -> Any:
            if self.is_deadly(*arguments):
                die()
            return real(*arguments, **options)

        setattr(self.inside, self.name, deadly)
        try:
            yield
        finally:
            setattr(self.inside, self.name, real)


def among_others(spark: SparkSession, folder: str, deadly: Collection[int] = DEADLY) -> list[str]:
    """What becomes of items of which some kill their workers."""

    def work(item: int, watch: Watch) -> str:
        try:
            watch.enter(str(item), f"Item {item}")
        except BadInput as error:
            return error.problem
        if item in deadly:
            die()
        return str(item)

    return each(spark, Store(folder), "r1", ITEMS, work, tasks=3)


if __name__ == "__main__":
    from segpipe.launch.session import build

    session = build("deadly", master=sys.argv[1], extra_conf={"spark.ui.enabled": "false"})
    print(json.dumps(among_others(session, sys.argv[2])))
    session.stop()
