"""Where the project's own files are: its code, the programs of the jobs, and the conf files."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
_BROUGHT = PACKAGE / "_project"  # where the wheel puts jobs and conf, see setup.py
FROM_WHEEL = _BROUGHT.is_dir()
"""Whether pip has installed segpipe from its wheel, so that there is no checkout."""

# A checkout, what the wheel brought of one, or on a node of a cluster the zip that holds the code.
ROOT = _BROUGHT if FROM_WHEEL else PACKAGE.parent
JOBS, CONF = ROOT / "jobs", ROOT / "conf"


def job_names() -> list[str]:
    """The names of all jobs, also where the code is a zip on a cluster's node."""
    return sorted(module.name for module in pkgutil.iter_modules([str(JOBS)]))


def command() -> str:
    """What a person types to run a job from here."""
    return os.environ.get("SEGPIPE_COMMAND") or ("segpipe" if FROM_WHEEL else "./spark-submit.sh")
