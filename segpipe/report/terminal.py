"""What a terminal shows of results: a table, and the report in a browser."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pyarrow.dataset as ds

from segpipe.report.results import find_model
from segpipe.warehouse.store import Store

_FIGURES = (("volume_ml", 1), ("truth_volume_ml", 1), ("dice", 3))


def results_table(warehouse: str, cohort: str, model: str) -> str:
    """Patient, region, volume and Dice of the test split as aligned lines, and the mean whole-tumour Dice."""
    known = find_model(model)
    wanted = (ds.field("cohort") == cohort) & (ds.field("model_id") == known.model_id) & (ds.field("split") == "test")
    columns = ["subject", "session", "region", *(name for name, _ in _FIGURES)]
    found = Store(warehouse).table("segmentations").to_table(columns, filter=wanted).to_pylist()
    order = list(known.bundle["regions"])
    found.sort(key=lambda row: (row["subject"], row["session"], order.index(row["region"])))
    head = ("patient", "region", "volume, ml", "true, ml", "Dice")
    lines = [
        (row["subject"], row["region"], *(_number(row[name], digits) for name, digits in _FIGURES)) for row in found
    ]
    text = _aligned([head, *lines])
    first = [row["dice"] for row in found if row["region"] == order[0] and row["dice"] is not None]
    if first:
        text += f"\n\nmean Dice of {order[0]} on {len(first)} unseen patients: {math.fsum(first) / len(first):.3f}"
    return text


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell: two of text, the others of numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def open_report(path: str) -> bool:
    """Show a report of this machine in a browser where a person sits before a screen.

    Says whether it tried, and never fails.
    """
    if "://" in path or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or not sys.stdout.isatty():
        return False
    import webbrowser

    try:
        return webbrowser.open(Path(path).resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False
