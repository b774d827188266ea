"""Who may read what segpipe writes, on disks and HDFS alike: the umask of the process, or that of SEGPIPE_UMASK."""

import os
import re

from segpipe.errors import UsageError

VARIABLE = "SEGPIPE_UMASK"


def follow_setting() -> None:
    """Make the umask of this process the one that SEGPIPE_UMASK says, in octal such as 027, where it is set.

    Raises UsageError for anything else, and for one that takes its owner the right to read and write.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return
    if not re.fullmatch(r"0?[0-7]{3}", value) or int(value, 8) & 0o700:
        raise UsageError(
            f"{VARIABLE} is {value!r}",
            "give three octal digits, the first 0: 027 lets the group read, 077 only you",
        )
    os.umask(int(value, 8))


def file_mode() -> int:
    """The mode of a new file on a file system that knows no umask."""
    return 0o666 & ~_umask()


def folder_mode() -> int:
    """The same of a folder."""
    return 0o777 & ~_umask()


def _umask() -> int:
    """The umask of this process; where /proc does not tell it, it is set for an instant to be read."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            found = re.search(r"^Umask:\s*([0-7]+)$", status.read(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
