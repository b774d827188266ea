"""What every job shares: options from settings, the site's file, the edge where errors become lines and exit codes."""

from segpipe.cli.context import Context
from segpipe.cli.edge import DONE, FAILED, QUARANTINED, execute
from segpipe.cli.places import check_apart, check_file, check_model, check_output, check_source, check_warehouse

__all__ = [
    "DONE",
    "FAILED",
    "QUARANTINED",
    "Context",
    "check_apart",
    "check_file",
    "check_model",
    "check_output",
    "check_source",
    "check_warehouse",
    "execute",
]
