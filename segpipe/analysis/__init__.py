"""A warehouse as people at a notebook meet it: tables by name, scans as volumes, pictures of both."""

from segpipe.analysis.opened import OpenedWarehouse
from segpipe.analysis.scan import Scan
from segpipe.analysis.view import TableView

__all__ = ["OpenedWarehouse", "Scan", "TableView"]
