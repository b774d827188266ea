"""segpipe: archives of brain MRI to answers on a Spark cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.errors import (
    BadInput,
    MissingPackage,
    ModelError,
    NotFound,
    SegpipeError,
    StorageError,
    TableError,
    UsageError,
    WarehouseBusy,
)

if TYPE_CHECKING:
    import os

    from segpipe.analysis import Warehouse

__version__ = "0.2.0"
__all__ = [
    "BadInput",
    "MissingPackage",
    "ModelError",
    "NotFound",
    "SegpipeError",
    "StorageError",
    "TableError",
    "UsageError",
    "WarehouseBusy",
    "open_warehouse",
]


def open_warehouse(path: str | os.PathLike[str]) -> Warehouse:
    """The warehouse at a folder or URL (file://, hdfs://, s3://), for notebooks and scripts; reads nothing yet.

    >>> open_warehouse("demo/tables").segmentations.where(split="test").to_pandas()  # doctest: +SKIP

    Raises NotFound if there is no such folder, or one that holds other things.
    """
    from segpipe.analysis import Warehouse

    return Warehouse(str(path))
