"""What ./spark-submit.sh starts: SIGTERM is heard while all that the launcher needs is still being imported."""

import sys

from segpipe.interrupts import ended_by, terminable


def main() -> int:
    """Run the launcher, and give its exit code."""
    try:
        with terminable():
            from segpipe.launch import submit

            return submit.main()
    except KeyboardInterrupt as interrupt:
        return ended_by(interrupt)


if __name__ == "__main__":
    sys.exit(main())
