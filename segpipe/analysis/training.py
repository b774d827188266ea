"""What a model directory tells about its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.errors import NotFound
from segpipe.storage.model_directory import HISTORY, model_id_of, read_history

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["history_of", "model_id_of"]


def history_of(model: str) -> pd.DataFrame:
    """One row per epoch of a training: the model directory's history.csv (path or URL), missing values as NaN.

    Raises NotFound if there is none.
    """
    import pandas as pd

    rows = read_history(model)
    if not rows:
        raise NotFound(f"Model {model} has no {HISTORY}", "name a folder that `train` wrote")
    return pd.DataFrame(rows).set_index("epoch")
