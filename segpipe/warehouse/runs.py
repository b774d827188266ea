"""The `runs` table: what every job did, with which settings and versions, and how it ended."""

from __future__ import annotations

import contextlib
import errno
import platform
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import pyarrow as pa

import segpipe
from segpipe.interrupts import interrupt_behind, terminable
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import RUNS

_PACKAGES = (
    "numpy",
    "pyarrow",
    "pyspark",
    "nibabel",
    "pydicom",
    "tensorflow-cpu",
    "openvino",
    "bigdl-orca-spark3",
    "horovod",
)
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
_CREDENTIALS = re.compile(r"(?<=://)[^/@]+@")


@dataclass
class RunRecord:
    """What a run has done so far; the row of `runs` and the summary that people read have the same content.

    `counts` are rows, bytes and the like; `stage_seconds` the wall time of each stage; `lines` are sentences for the
    summary alone.
    """

    run_id: str
    job: str
    cohort: str | None
    started: datetime
    parameters: dict[str, str]
    model_id: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0
    outcome: str = "running"
    message: str | None = None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to a stage, whether it ends well or not."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + time.perf_counter() - start

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count; a count of zero is on record too."""
        self.counts[name] += int(number)

    def row(self) -> pa.Table:
        """The row of `runs`."""
        row = {
            "run_id": self.run_id,
            "job": self.job,
            "cohort": self.cohort,
            "model_id": self.model_id,
            "started": self.started,
            "seconds": self.seconds,
            "outcome": self.outcome,
            "message": self.message,
            "parameters": list(self.parameters.items()),
            "versions": list(versions().items()),
            "stage_seconds": list(self.stage_seconds.items()),
            "counts": list(self.counts.items()),
        }
        return pa.Table.from_pylist([row], RUNS.schema)

    def summary(self) -> str:
        """The same content as sentences for a terminal, without a line break at the end."""
        ended = f": {self.message}" if self.message else ""
        lines = [f"{self.job} {self.run_id} {self.outcome} after {self.seconds:.1f} s{ended}"]
        if self.counts:
            lines.append(
                "  " + ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in self.counts.items())
            )
        if self.stage_seconds:
            lines.append("  " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.stage_seconds.items()))
        return "\n".join(lines + [f"  {line}" for line in self.lines])


@contextlib.contextmanager
def record_run(warehouse: Store | None, job: str, settings: Any) -> Iterator[RunRecord]:
    """Record the block as a run of `job` with `settings` (a settings dataclass): done, failed or interrupted.

    The row is written however the block ends, SIGTERM included (it becomes a KeyboardInterrupt here, so that locks
    are given back); only a kill leaves none. What a job found, or why it failed, is not lost where the table cannot be
    written, as on a read-only disk: then the summary tells so. A job without a warehouse (None), or one that failed
    before there was any, only gets its record filled in.
    """
    parameters = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else dict(settings)
    started = datetime.now(timezone.utc)
    record = RunRecord(
        run_id=f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        job=job,
        cohort=parameters.get("cohort") or None,
        started=started,
        parameters={name: _CREDENTIALS.sub("", str(value)) for name, value in parameters.items()},
    )
    clock = time.perf_counter()
    try:
        with terminable():
            yield record
        record.outcome = "done"
    except BaseException as error:
        stop = interrupt_behind(error) if isinstance(error, Exception) else error
        record.outcome = "failed" if stop is None else "interrupted"
        record.message = _CREDENTIALS.sub("", str(stop or error) or type(stop or error).__name__)
        raise
    finally:
        record.seconds = time.perf_counter() - clock
        if warehouse is not None and (record.outcome == "done" or warehouse.exists()):
            try:
                warehouse.append(RUNS, record.row(), record.run_id)
            except OSError as error:
                if record.outcome == "done" and error.errno not in _UNWRITABLE:
                    raise
                record.lines.append(f"this run is not in the table runs, which cannot be written: {error}")


def versions() -> dict[str, str]:
    """The versions of segpipe, Python and the packages that shape its results, read without importing them."""
    found = {"segpipe": segpipe.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
