"""Opening DICOM files with care: whatever a parser stumbles over becomes BadInput, and nothing quotes a patient."""

import contextlib
import errno
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

from segpipe.errors import BadInput, Reason, SegpipeError

_DEFLATED = "1.2.840.10008.1.2.1.99"
_LEAST_ITEM = b"\xfe\xff\x00\xe0"  # an item of a sequence begins so, little-endian
_MOST_ITEMS = 1 << 20
_ITEM_BYTES = 8  # an empty item
MOST_FRAMES = 1 << 16
"""Of one file: an examination has a few thousand; each costs a parser a hundred times the bytes that it takes."""


def refuse_deflated(file: BinaryIO, name: str) -> None:
    """Deflated data sets would inflate without a bound, however long the header before them. Goes back to the start."""
    reader = pydicom().filereader
    reader.read_preamble(file, True)
    syntax = str(reader._read_file_meta_info(file).get("TransferSyntaxUID", ""))
    if syntax.strip("\0 ") == _DEFLATED:
        bad(Reason.UNSUPPORTED, f"{name} is a deflated DICOM file", "convert it to another transfer syntax")
    file.seek(0)


def refuse_endless(content: bytes, name: str) -> None:
    """Refuse a file of more items of sequences than any image has, before a parser makes an object of each."""
    if len(content) > _ITEM_BYTES * _MOST_ITEMS and content.count(_LEAST_ITEM) > _MOST_ITEMS:
        bad(Reason.TOO_LARGE, f"{name} has more than {_MOST_ITEMS} items in its sequences", "convert it to NIfTI")


@contextlib.contextmanager
def careful(name: str) -> Iterator[None]:
    """Turn whatever a parser stumbles over in a file into BadInput."""
    try:
        yield
    except SegpipeError:
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # the file system's, not the parser's
            raise
        bad(Reason.TRUNCATED, f"{name} ends in the middle of an element", "copy it again from its source")
    except EOFError:
        bad(Reason.TRUNCATED, f"{name} ends in the middle of an element", "copy it again from its source")
    except Exception as error:
        bad(Reason.CORRUPT, f"{name} is a broken DICOM file ({type(error).__name__})", "copy it again from its source")


@lru_cache(maxsize=1)
def pydicom() -> Any:
    """pydicom, its warnings and log lines kept quiet in this process, because they may quote patients."""
    import pydicom as package
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    config.logger.disabled = True
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    return package


def bad(reason: Reason, problem: str, remedy: str) -> NoReturn:
    """Raise BadInput."""
    raise BadInput(reason, problem, remedy)
