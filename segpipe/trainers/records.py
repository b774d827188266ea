"""Small files of a training in its model directory: history.csv, and why it failed."""

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterator
from typing import Any

from segpipe.errors import SegpipeError, StorageError
from segpipe.storage.filesystem import filesystem, join, remove, replace

HISTORY = "history.csv"
_FAILURE = "failure.json"


def history_bytes(history: list[dict[str, Any]]) -> bytes:
    """Rows as CSV, one column per key of the first; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue().encode()


def write_history(model_url: str, history: list[dict[str, Any]]) -> None:
    """Put history.csv in place."""
    fs, folder = filesystem(model_url)
    fs.makedirs(folder, exist_ok=True)
    replace(fs, join(folder, HISTORY), history_bytes(history))


def read_history(model_url: str) -> list[dict[str, float]]:
    """The rows of history.csv, empty cells as NaN; none where it is missing."""
    fs, folder = filesystem(model_url)
    try:
        text = fs.cat_file(join(folder, HISTORY)).decode()
    except FileNotFoundError:
        return []
    return [{name: float(cell or "nan") for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]


@contextlib.contextmanager
def telling(model_url: str) -> Iterator[None]:
    """Leave word for the driver where a worker gives up for a reason of ours: Spark only carries a stack trace.

    Such a reason lies in data or settings, where another try ends the same; storage that fails may be back by then.
    """
    try:
        yield
    except StorageError:
        raise
    except SegpipeError as error:
        fs, folder = filesystem(model_url)
        fs.makedirs(folder, exist_ok=True)
        replace(fs, join(folder, _FAILURE), json.dumps([error.problem, error.remedy]).encode())
        raise


def take_failure(model_url: str) -> SegpipeError | None:
    """What a worker left word of, and forget it."""
    fs, folder = filesystem(model_url)
    try:
        problem, remedy = json.loads(fs.cat_file(join(folder, _FAILURE)))
    except FileNotFoundError:
        return None
    remove(fs, join(folder, _FAILURE))
    return SegpipeError(problem, remedy)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
