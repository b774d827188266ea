"""What DICOM objects that refer to a series share: images with all elements that it copies, and UIDs."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

from segpipe.errors import BadInput, Reason
from segpipe.readers import inflate

_ROOT = "2.25."  # of UIDs that are numbers of 128 bits
_HEADER_BYTES = 1 << 14
_MOST_BYTES = 1 << 31
TYPE_1 = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "PositionReferenceIndicator",
)


def images(contents: Sequence[bytes], scan_id: str, what: str, needed: Sequence[str] = TYPE_1) -> list[Any]:
    """The images of a series, with the elements that must be there but may be empty (type 2, PS3.5, 7.4), which
    de-identification takes out.

    Raises BadInput naming every element that must have a value (type 1, those `needed`) and is missing; `what` is the
    object that is to refer to them.
    """
    found = []
    missing: dict[str, int] = {}
    for content in contents:
        image = _dataset(content)
        for name in _TYPE_2:
            if name not in image:
                setattr(image, name, "")
        for name in needed:
            if not image.get(name):
                missing[name] = missing.get(name, 0) + 1
        found.append(image)
    if missing:
        told = ", ".join(missing)
        some = "" if max(missing.values()) == len(contents) else f" in {max(missing.values())} of {len(contents)} files"
        problem = f"The series of scan {scan_id} cannot be referred to by a {what}: it lacks {told}{some}"
        raise BadInput(Reason.UNSUPPORTED, problem, "use --nifti")
    return found


def refused(scan_id: str, what: str, error: Exception) -> BadInput:
    """What to raise where highdicom could not make an object: it names the element, and never quotes the patient."""
    problem = f"The series of scan {scan_id} cannot be referred to by a {what}: {_fault(error)}"
    return BadInput(Reason.UNSUPPORTED, problem, "use --nifti")


def uid(*parts: str) -> str:
    """The UID of an object: the same for the same parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return _ROOT + str(int.from_bytes(digest, "big"))


def is_instance(start: bytes, uid: str) -> bool:
    """Whether the first bytes of a file are those of the DICOM object with this SOP instance UID."""
    return start[128:132] == b"DICM" and uid.encode() in start[:_HEADER_BYTES]


def written(dataset: Any) -> bytes:
    """An object as a file."""
    import pydicom

    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _dataset(content: bytes) -> Any:
    import pydicom

    if inflate.is_gzip(content):
        content = inflate.up_to(content, _MOST_BYTES, "series")[0]
    return pydicom.dcmread(io.BytesIO(content), force=True)


def _fault(error: Exception) -> str:
    """The element that a library stumbled over; else the kind of error alone, for its text may quote the patient."""
    from pydicom.datadict import tag_for_keyword

    words = [word for word in re.findall(r"[A-Z][A-Za-z0-9]+", str(error)) if tag_for_keyword(word) is not None]
    return f"{' and '.join(dict.fromkeys(words))} ({type(error).__name__})" if words else type(error).__name__
