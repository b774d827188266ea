"""segpipe: archives of brain MRI to answers on a Spark cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from segpipe.analysis import OpenedWarehouse

__version__ = "0.2.0"


def open_warehouse(path: str | os.PathLike[str]) -> OpenedWarehouse:
    """The warehouse at a folder or URL (file://, hdfs://), for notebooks and scripts; reads nothing yet.

    >>> open_warehouse("demo/tables").segmentations.where(split="test").pandas()  # doctest: +SKIP

    Raises NotFound where there is none.
    """
    from segpipe.analysis import OpenedWarehouse

    return OpenedWarehouse(str(path))
