"""A warehouse as people at a notebook meet it: tables by name, scans as volumes, pictures of both."""

from segpipe.analysis.scan import Scan
from segpipe.analysis.view import TableView
from segpipe.analysis.warehouse import Warehouse

__all__ = ["Scan", "TableView", "Warehouse"]
