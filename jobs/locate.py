"""Find the files that a keyed hash in the tables stands for."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_source, execute
from segpipe.settings import LocateSettings


def run(settings: LocateSettings, context: Context) -> int:
    """Print the files. No table keeps what was asked for, nor the answer."""
    from segpipe.errors import NotFound, UsageError
    from segpipe.readers.locate import locate
    from segpipe.readers.naming import KEY_REMEDY, subject_key

    key = subject_key(settings.subject_key_file)
    if key is None:
        raise UsageError("What a hash stands for cannot be told without the subject key", KEY_REMEDY)
    found = locate(settings.source, settings.token, key, settings.layout)
    if not found:
        raise NotFound(
            f"{settings.token} is not a file or scan of {settings.source} under this key",
            "give the source and the key of that ingest, and the whole value of the column",
        )
    for path in found:
        context.say(path)
    return DONE


def check(settings: LocateSettings) -> None:
    """Refuse a source that is not there."""
    check_source(settings.source)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("locate", LocateSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
