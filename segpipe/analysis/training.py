"""What a model directory tells about its training."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from segpipe.errors import NotFound
from segpipe.storage import url_to_fs

if TYPE_CHECKING:
    import pandas as pd


def history_of(model: str) -> pd.DataFrame:
    """One row per epoch of a training: the model directory's history.csv (path or URL), missing values as NaN.

    Raises NotFound where there is none.
    """
    import pandas as pd

    rows = list(csv.DictReader(io.StringIO(_read(model, "history.csv"))))
    return pd.DataFrame(rows).apply(pd.to_numeric, errors="coerce").set_index("epoch")


def model_id_of(model: str) -> str:
    """The id that the tables know a model directory (path or URL) by. Raises NotFound where it is none."""
    return str(json.loads(_read(model, "bundle.json"))["model_id"])


def _read(model: str, name: str) -> str:
    fs, folder = url_to_fs(model)
    try:
        content: bytes = fs.cat_file(f"{folder.rstrip('/')}/{name}")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"Model {model} has no {name}", "name a folder that `train` wrote") from None
    return content.decode("utf-8")
