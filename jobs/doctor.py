"""What this machine or cluster lacks, each with its remedy."""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from jobs.common import DONE, FAILED, Context, execute


@dataclass(frozen=True)
class DoctorSettings:
    """What this machine or cluster lacks, each with its remedy; exit code 1 when something necessary is missing."""


def run(settings: DoctorSettings, context: Context) -> int:
    """Print the table of checks."""
    from segpipe.doctor import diagnose

    return FAILED if diagnose(context.say) else DONE


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("doctor", DoctorSettings, run, argv)


if __name__ == "__main__":
    sys.exit(main())
