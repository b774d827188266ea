"""Processes that the Spark of the tests has started."""

from __future__ import annotations

import psutil


def workers_of_spark() -> list[psutil.Process]:
    """Spark's Python workers: processes that the fork server has forked, and not the fork server itself."""
    servers = [one for one in psutil.Process().children(recursive=True) if _is_fork_server(one)]
    return [one for one in servers if one.parent() in servers]


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        return "segpipe.trainers.forkserver" in process.cmdline()
    except psutil.Error:  # it has ended
        return False
