"""What a model directory tells without its network: the id that the tables know it by, and how it was trained."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from segpipe.errors import ModelError, NotFound
from segpipe.storage.filesystem import filesystem, join, replace

BUNDLE, HISTORY = "bundle.json", "history.csv"


def bundle_json(url: str) -> dict[str, Any]:
    """What bundle.json says, unchecked except for its `model_id`.

    Raises NotFound if the directory holds none, and ModelError if it is not readable as one.
    """
    fs, folder = filesystem(url)
    try:
        content = json.loads(fs.cat_file(join(folder, BUNDLE)))
        return {**content, "model_id": str(content["model_id"])}
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"Model {url} has no {BUNDLE}", "name a folder that `train` or `adopt` wrote") from None
    except (ValueError, KeyError, TypeError) as fault:
        raise ModelError(f"File {url}/{BUNDLE} is damaged ({fault})", "train again or restore it") from None


def model_id_of(url: str) -> str:
    """The id that the tables know a model directory by; raises as `bundle_json` does."""
    return str(bundle_json(url)["model_id"])


def read_history(url: str) -> list[dict[str, float]]:
    """The rows of history.csv, one per epoch: empty cells and words as NaN; no rows where it is missing."""
    fs, folder = filesystem(url)
    try:
        text = fs.cat_file(join(folder, HISTORY)).decode()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [{name: _number(cell) for name, cell in row.items() if name} for row in csv.DictReader(io.StringIO(text))]


def write_history(url: str, history: Sequence[Mapping[str, Any]]) -> None:
    """Put history.csv in place."""
    fs, folder = filesystem(url)
    fs.makedirs(folder, exist_ok=True)
    replace(fs, join(folder, HISTORY), history_bytes(history))


def history_bytes(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV, one column per key of the first; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue().encode()


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
