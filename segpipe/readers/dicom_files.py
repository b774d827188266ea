"""Opening DICOM files with care: whatever a parser stumbles over becomes BadInput, and nothing quotes a patient."""

import contextlib
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

from segpipe.errors import BadInput, Reason, SegpipeError

_DEFLATED = b"1.2.840.10008.1.2.1.99"


def refuse_deflated(file: BinaryIO, name: str) -> None:
    """Deflated data sets would inflate without a bound. Goes back to the start."""
    if _DEFLATED in file.read(1 << 12):
        bad(Reason.UNSUPPORTED, f"{name} is a deflated DICOM file", "convert it to another transfer syntax")
    file.seek(0)


@contextlib.contextmanager
def careful(name: str) -> Iterator[None]:
    """Turn whatever a parser stumbles over in a file into BadInput."""
    try:
        yield
    except SegpipeError:
        raise
    except OSError as error:
        if error.errno is not None:  # the file system's, not the parser's
            raise
        bad(Reason.TRUNCATED, f"{name} ends in the middle of an element", "copy it again from its source")
    except EOFError:
        bad(Reason.TRUNCATED, f"{name} ends in the middle of an element", "copy it again from its source")
    except Exception as error:
        bad(Reason.CORRUPT, f"{name} is a broken DICOM file ({type(error).__name__})", "copy it again from its source")


@lru_cache(maxsize=1)
def pydicom() -> Any:
    """pydicom, its warnings and log lines kept quiet in this process, for they may quote patients."""
    import pydicom as package
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    config.logger.disabled = True
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    return package


def bad(reason: Reason, problem: str, remedy: str) -> NoReturn:
    """Raise BadInput."""
    raise BadInput(reason, problem, remedy)
