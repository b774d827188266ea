"""A progress display for long work: a bar on a terminal, a line now and then where there is none.

Work that takes a `progress` argument calls `with progress(total, label) as bar:` and `bar.advance(count, note)`;
jobs hand in `functools.partial(watch, spark)`, tests and notebooks may hand in `silent`. Where `bar.advance` is never
called, the tasks that Spark has finished move the bar.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

POLL_SECONDS = 0.5
LINE_SECONDS = 15.0


class Bar:
    """How much of `total` is done; thread-safe."""

    def __init__(self, total: int, label: str):
        self.total = total
        self.label = label
        self.done = 0.0
        self.begun_at = 0.0
        self.note = ""
        self.counted = False
        self._told: list[str] = []
        self._lock = threading.Lock()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count more units as done; `note` (such as `loss 0.31`) is shown behind the bar."""
        with self._lock:
            self.counted = True
            self.done = self.done + count
            self.note = note or self.note

    def begin_at(self, done: int) -> None:
        """Count what an earlier run has done: it says nothing of how long the rest takes."""
        with self._lock:
            self.counted = True
            self.done = self.begun_at = float(done)

    def tell(self, line: str) -> None:
        """Show a line that stays, above the bar."""
        with self._lock:
            self._told.append(line)

    def take_told(self) -> list[str]:
        """The lines that `tell` got since the last time."""
        with self._lock:
            told, self._told = self._told, []
            return told

    def reach(self, done: float) -> None:
        """Set what Spark has done, where nothing is counted by `advance`."""
        with self._lock:
            if not self.counted:
                self.done = max(self.done, min(done, float(self.total)))

    def __str__(self) -> str:
        return f"{self.label}: {int(self.done)} of {self.total}{'  ' + self.note if self.note else ''}"


Progress = Callable[[int, str], AbstractContextManager[Bar]]


@contextmanager
def silent(total: int, label: str) -> Iterator[Bar]:
    """A bar that nobody sees."""
    yield Bar(total, label)


@contextmanager
def watch(spark: SparkSession | None, total: int, label: str, stream: TextIO | None = None) -> Iterator[Bar]:
    """Show the progress of the work in the `with` block on `stream` (stderr when None).

    `total` counts units of work (scans, epochs). The block's Spark jobs run in a job group of their own.
    """
    stream = stream or sys.stderr
    bar = Bar(total, label)
    stop = threading.Event()
    display = _terminal if stream.isatty() else _lines
    group = _open_group(spark, label)
    thread = threading.Thread(target=display, args=(bar, stop, _poller(spark, group, bar), stream), daemon=True)
    thread.start()
    try:
        yield bar
        bar.reach(total)
    finally:
        stop.set()
        thread.join()
        _close_group(spark)


def _open_group(spark: SparkSession | None, label: str) -> str:
    group = f"segpipe-{uuid.uuid4().hex}"
    if spark is not None:
        spark.sparkContext.setJobGroup(group, label)
    return group


def _close_group(spark: SparkSession | None) -> None:
    if spark is not None and spark.sparkContext._jsc is not None:  # stopped by an interrupt
        spark.sparkContext._jsc.clearJobGroup()


def _poller(spark: SparkSession | None, group: str, bar: Bar) -> Callable[[], None]:
    if spark is None:
        return lambda: None
    tracker = spark.sparkContext.statusTracker()

    def poll() -> None:
        try:
            jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
            stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
        except Exception:  # the session may be going down: a display must never fail the work
            return
        tasks = sum(stage.numTasks for stage in stages if stage)
        if tasks:
            bar.reach(bar.total * sum(stage.numCompletedTasks for stage in stages if stage) / tasks)

    return poll


def _terminal(bar: Bar, stop: threading.Event, poll: Callable[[], None], stream: TextIO) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(file=stream)) as display:
        task = display.add_task(bar.label, total=bar.total, note="")
        last = False
        while not last:
            last = stop.wait(POLL_SECONDS)
            if not last:
                poll()
            for line in bar.take_told():
                display.console.print(line, markup=False, highlight=False)
            display.update(task, completed=int(bar.done), note=bar.note)


def _lines(bar: Bar, stop: threading.Event, poll: Callable[[], None], stream: TextIO) -> None:
    shown, begun = "", time.monotonic()
    last = begun
    while not stop.wait(POLL_SECONDS):
        poll()
        if _print_told(bar, stream):
            shown = str(bar)
        if str(bar) != shown and time.monotonic() - last >= LINE_SECONDS:
            shown, last = str(bar), time.monotonic()
            left = time_left(bar.done - bar.begun_at, bar.total - bar.begun_at, last - begun)
            print(f"{shown}  {left}".rstrip(), file=stream, flush=True)
    if not _print_told(bar, stream) and str(bar) != shown:
        print(bar, file=stream, flush=True)


def _print_told(bar: Bar, stream: TextIO) -> bool:
    told = bar.take_told()
    for line in told:
        print(f"{bar.label}: {line}", file=stream, flush=True)
    return bool(told)


def time_left(done: float, total: float, seconds: float) -> str:
    """How long the rest takes if it goes on as it did in the first `seconds`; empty where nobody can tell.

    >>> time_left(10, 40, 60.0), time_left(39, 40, 60.0), time_left(0, 40, 60.0)
    ('about 3 min left', 'about 2 s left', '')
    """
    if not 0 < done < total:
        return ""
    left = seconds * (total - done) / done
    return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"
