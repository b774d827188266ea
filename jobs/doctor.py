"""Tell what this machine or cluster lacks, and what to do about it."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, FAILED, Context, execute
from segpipe.cli.site import site_settings
from segpipe.settings import DoctorSettings, TrainSettings


def run(settings: DoctorSettings, context: Context) -> int:
    """Print the table of checks."""
    from segpipe.doctor.machine import diagnose
    from segpipe.launch.submitted import settings_of

    submitted = settings_of(os.environ.get("SEGPIPE_SUBMIT_OPTIONS", "").splitlines())
    ports = str(site_settings("train", TrainSettings).get("ports", TrainSettings.ports))
    return FAILED if diagnose(context.say, submitted, settings.workers, ports) else DONE


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("doctor", DoctorSettings, run, argv)


if __name__ == "__main__":
    sys.exit(main())
