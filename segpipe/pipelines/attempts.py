"""Work that goes on when a Python worker dies: who was at which scan, what is tried again, what is given up."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from segpipe.errors import BadInput, Reason
from segpipe.pipelines.progress import Bar, Progress, silent
from segpipe.storage import filesystem as files
from segpipe.traces import words_of
from segpipe.warehouse import parts
from segpipe.warehouse.store import Store

if TYPE_CHECKING:
    from pyspark import Accumulator, AccumulatorParam
    from pyspark.sql import SparkSession

DEADLY = 2
"""A scan on which this many workers died in one run is quarantined."""

LOCAL_TRIES = 2 * DEADLY + 1
"""A scan may be worked on in two parts, for visits in the next one may be laid onto it: none of both ends the run."""

RETRIED = (Reason.UNREADABLE, Reason.CRASHED)
"""Reasons that need not lie in the input itself, so that an unchanged input is tried again by the next run."""

T = TypeVar("T")


def collect(
    spark: SparkSession, run_id: str, total: int, label: str, progress: Progress | None, work: Callable[[Bar], T]
) -> T:
    """What `work` collects from Spark tasks, all of which are cancelled when this ends early.

    It is `tried` again where a worker died; tasks must see for themselves what an earlier attempt has done. `progress`
    shows `label` and `total` units.
    """
    context = spark.sparkContext
    context.addJobTag(run_id)
    try:
        with (progress or silent)(total, label) as bar:
            return tried(spark, lambda: work(bar))
    finally:
        context.cancelJobsWithTag(run_id)
        context.removeJobTag(run_id)


def tried(spark: SparkSession, work: Callable[[], T]) -> T:
    """What `work` collects from Spark tasks, which a local Spark does not try again if their worker died."""
    tries = LOCAL_TRIES if spark.sparkContext.master.startswith("local") else 1
    for left in reversed(range(tries)):
        try:
            return work()
        except Exception as error:
            if not left or not _is_worker_death(error):
                raise
    raise AssertionError("unreachable")


def _is_worker_death(error: Exception) -> bool:
    text = words_of(error)
    return any(sign in text for sign in ("Python worker exited unexpectedly", "SocketException", "EOFException"))


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
    """Remembers on which scan a worker is, so that the next attempt knows on which one it died.

    Every attempt at a part keeps one file below the run's staging folder, with the id of the scan that it works on.
    `job` is the one to run again, as told to the user.
    """

    def __init__(self, warehouse: Store, run_id: str, part: str, job: str):
        self._fs = warehouse.fs
        self._folder = warehouse.path(parts.STAGING, run_id, f"{part}.at")
        self._file = files.join(self._folder, uuid.uuid4().hex)
        self._deaths: Counter[str] = Counter()
        self._job = job
        self._at: str | None = None

    def __enter__(self) -> Watch:
        files.make_folder(self._fs, self._folder)
        for name in files.names(self._fs, self._folder):
            with contextlib.suppress(FileNotFoundError):  # another attempt, alive and done
                self._deaths[self._fs.cat_file(files.join(self._folder, name)).decode()] += 1
        return self

    def enter(self, scan_id: str) -> None:
        """Work on a scan begins. Raises BadInput if too many workers died on it."""
        if self._deaths[scan_id] >= DEADLY:
            problem = f"Scan {scan_id} killed {self._deaths[scan_id]} workers, most likely because memory ran out"
            raise BadInput(Reason.CRASHED, problem, f"give the workers more memory and run {self._job} again")
        self._fs.pipe_file(self._file, scan_id.encode())
        self._at = scan_id

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
        files.remove(self._fs, self._file)
