"""Where the jobs' common parts were; they are in segpipe.cli."""

from segpipe.cli import DONE, FAILED, QUARANTINED, Context, check_model, check_source, check_warehouse, execute

__all__ = [
    "DONE",
    "FAILED",
    "QUARANTINED",
    "Context",
    "check_model",
    "check_source",
    "check_warehouse",
    "execute",
]
