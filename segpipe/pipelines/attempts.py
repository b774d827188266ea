"""Work that goes on when a Python worker dies: who was at which input, what is tried again, what is given up."""

from __future__ import annotations

import contextlib
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from segpipe.errors import BadInput, Reason
from segpipe.pipelines.progress import Bar, Progress, silent
from segpipe.storage import filesystem as files
from segpipe.traces import words_of
from segpipe.warehouse import parts
from segpipe.warehouse.store import Store

if TYPE_CHECKING:
    from pyspark import Accumulator, AccumulatorParam, TaskContext
    from pyspark.sql import SparkSession

DEADLY = 2
"""An input on which this many workers died in one run is given up."""

LOCAL_TRIES = 5
"""How often a local Spark, which tries no task again, may lose a worker of which nothing tells what it was at."""

MOST_TRIES = 100
"""How often work is tried in all: if so many inputs kill their workers, something else is wrong."""

RETRIED = (Reason.UNREADABLE, Reason.CRASHED)
"""Reasons that need not lie in the input itself, so that an unchanged input is tried again by the next run."""

_NOTES = "notes"
_DEAD = "dead-"
_TASKS_PER_CORE = 4

T = TypeVar("T")
Item = TypeVar("Item")


@contextlib.contextmanager
def running(spark: SparkSession, run_id: str, total: int, label: str, progress: Progress | None) -> Iterator[Bar]:
    """A bar for `total` units of work in Spark tasks, all of which are cancelled when the block ends early."""
    context = spark.sparkContext
    context.addJobTag(run_id)
    try:
        with (progress or silent)(total, label) as bar:
            yield bar
    finally:
        context.cancelJobsWithTag(run_id)
        context.removeJobTag(run_id)


def tried(spark: SparkSession, warehouse: Store, run_id: str, work: Callable[[], T]) -> T:
    """What `work` collects from Spark tasks, again where a worker died: an input that kills its workers ends no run.

    Tasks keep a `Watch`, and must see for themselves what an earlier attempt has done.
    """
    unexplained = 0
    for left in reversed(range(MOST_TRIES)):
        try:
            return work()
        except Exception as error:
            words = words_of(error)
            if not left or not any(sign in words for sign in _DEATHS):
                raise
            unexplained += not _is_explained(warehouse, run_id, words)
            if unexplained == (LOCAL_TRIES if spark.sparkContext.master.startswith("local") else 1):
                raise
    raise AssertionError("unreachable")


_DEATHS = ("Python worker exited unexpectedly", "SocketException", "EOFException", "ExecutorLostFailure")


def _is_explained(warehouse: Store, run_id: str, words: str) -> bool:
    """Whether the task that Spark has given up had noted what it was at; its notes become those of the dead."""
    fs, folder = warehouse.fs, warehouse.path(parts.STAGING, run_id, _NOTES)
    task = re.search(r"Task (\d+) in stage (\d+)", words)
    mine = _task(int(task[2]), int(task[1])) if task else _DEAD
    notes = [name for name in files.names(fs, folder) if task and name.startswith(mine)]
    for name in notes:
        files.rename_over(fs, files.join(folder, name), files.join(folder, _DEAD + name))
    if not notes:
        files.make_folder(fs, folder)
        fs.pipe_file(files.join(folder, _DEAD + uuid.uuid4().hex), b"")  # from now on tasks take notes
    return bool(notes)


def _task(stage: int, partition: int) -> str:
    """How the notes of a task begin."""
    return f"task-{stage}-{partition}-"


def each(
    spark: SparkSession,
    warehouse: Store,
    run_id: str,
    items: Sequence[Item],
    work: Callable[[Item, Watch], T],
    tasks: int | None = None,
) -> list[T]:
    """What `work` makes of each item in Spark tasks, by default a few a core.

    They go on without an input that kills its workers: `work` enters each into the `Watch`, which takes notes once a
    worker has died, because they take time.
    """

    def of_task(some: Iterable[Item]) -> Iterator[T]:
        with Watch(Store(url), run_id, takes_notes=False) as watch:
            for item in some:
                yield work(item, watch)

    context, url, notes = spark.sparkContext, warehouse.url, warehouse.path(parts.STAGING, run_id, _NOTES)
    given = context.parallelize(items, tasks or min(len(items), _TASKS_PER_CORE * context.defaultParallelism))
    try:
        return tried(spark, warehouse, run_id, lambda: given.mapPartitions(of_task).collect())
    finally:
        if files.names(warehouse.fs, notes):
            files.remove(warehouse.fs, notes)


def tally(
    spark: SparkSession, bar: Bar, quarantined: int = 0, unit: str = "scans", bad: str = "quarantined"
) -> Accumulator[tuple[int, int]]:
    """What tasks tell of: `tally.add((scans, quarantined))` moves the bar as soon as the task has ended.

    `quarantined` were so before the first task. The bar tells scans per second and the number of quarantined scans, or
    what `unit` and `bad` call them.
    """
    bar.counted = True  # the tasks that Spark has finished no longer move it
    return spark.sparkContext.accumulator((0, quarantined), _tally_param(bar, unit, bad))


def _tally_param(bar: Bar | None, unit: str = "scans", bad: str = "quarantined") -> AccumulatorParam[tuple[int, int]]:
    from pyspark import AccumulatorParam

    class Tally(AccumulatorParam):
        """Adds pairs; on the driver, where Spark adds up what tasks send, it moves the bar too."""

        def __init__(self) -> None:
            self.begun = time.monotonic()

        def __reduce__(self) -> tuple[Callable[..., Any], tuple[None]]:
            return _tally_param, (None,)

        def zero(self, value: tuple[int, int]) -> tuple[int, int]:
            return 0, 0

        def addInPlace(self, value1: tuple[int, int], value2: tuple[int, int]) -> tuple[int, int]:  # noqa: N802
            scans, quarantined = value1[0] + value2[0], value1[1] + value2[1]
            if bar is not None and value2 != (0, 0):
                rate = scans / max(time.monotonic() - self.begun, 1e-3)
                bar.advance(min(value2[0], bar.total - int(bar.done)), f"{rate:.2g} {unit}/s, {quarantined} {bad}")
            return scans, quarantined

    return Tally()


class Watch:
    """Remembers at which input a worker is, so that a later attempt knows on which one it died.

    Every attempt at a task keeps one note below the run's staging folder, with the input that it works on. Its writer
    has died if Spark tries the task again, or if `tried` says so. Spark also ends tasks because another one has failed:
    these leave a note too, and what they were at is not to blame.
    """

    def __init__(self, warehouse: Store, run_id: str, takes_notes: bool = True):
        context = _context()
        self._fs = warehouse.fs
        self._folder = warehouse.path(parts.STAGING, run_id, _NOTES)
        self._task = _task(context.stageId(), context.partitionId()) if context else _task(0, 0)
        self._note = files.join(self._folder, f"{self._task}{uuid.uuid4().hex}")
        self.takes_notes = takes_notes or (context is not None and context.attemptNumber() > 0)
        self._deaths: Counter[str] = Counter()
        self._at: str | None = None

    def __enter__(self) -> Watch:
        for name in files.names(self._fs, self._folder):
            if name.startswith((_DEAD, self._task)):
                self.takes_notes = True
                with contextlib.suppress(FileNotFoundError):  # another attempt, alive and done
                    self._deaths[self._fs.cat_file(files.join(self._folder, name)).decode()] += 1
        return self

    def enter(self, key: str, what: str | None = None) -> None:
        """Work on an input begins, by default a scan. Raises BadInput if too many workers died on it.

        `key` is noted and names no patient; `what` is told.
        """
        if self._deaths[key] >= DEADLY:
            problem = f"{what or f'Scan {key}'} killed {self._deaths[key]} workers, most likely because memory ran out"
            raise BadInput(Reason.CRASHED, problem, "give the workers more memory and run the same command again")
        if self.takes_notes:
            files.make_folder(self._fs, self._folder)
            self._fs.pipe_file(self._note, key.encode())
        self._at = key

    @contextlib.contextmanager
    def aside(self, scan_id: str) -> Iterator[None]:
        """Work on another scan that the one at hand needs: what kills a worker meanwhile is that scan.

        Raises BadInput as `enter` does.
        """
        was = self._at
        self.enter(scan_id)
        try:
            yield
        finally:
            if was is not None:
                self.enter(was)

    def __exit__(self, *error: object) -> None:
        if self.takes_notes:
            files.remove(self._fs, self._note)


def _context() -> TaskContext | None:
    """The Spark task that runs here, if there is one: then pyspark is imported."""
    spark = sys.modules.get("pyspark")
    return spark.TaskContext.get() if spark else None
