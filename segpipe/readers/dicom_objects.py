"""What DICOM objects that refer to a series share: images with all elements that it copies, and UIDs."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from segpipe.errors import BadInput, Reason
from segpipe.readers import inflate

_SCHEME, _LONGEST_CODE = "99SEGPIPE", 16  # of codes of our own
_LESION = "l[eé]sion|läsion|tumou?r|glioma|metast|infarct|stroke|plaque|hyperintens|wmh|abnormal|mask|gtv"
_ROOT = "2.25."  # of UIDs that are numbers of 128 bits
_HEADER_BYTES = 1 << 14
_MOST_BYTES = 1 << 31
_CHARACTER_SET = "ISO_IR 192"  # UTF-8
_NO_SETS = ("", "ISO_IR 6", "ISO 2022 IR 6")
_TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
LONGEST_TEXT = 64
"""Characters of an element of value representation LO."""
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
    de-identification takes out. Their text is in UTF-8, whatever character sets the files name.

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


def finding(label: str) -> Any:
    """The code of what a label or a region means by its words; a private one of these where no public code fits."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    kinds = (
        ("necro", codes.SCT.Necrosis),
        ("o?edema|ödem", codes.SCT.Edema),
        ("non.?enhanc", codes.NCIt.NonEnhancingLesion),
        ("enhanc", codes.NCIt.EnhancingLesion),
        ("cyst", codes.SCT.Cyst),
        ("whole.?tumou?r", codes.SCT.Neoplasm),
        (_LESION, codes.SCT.Lesion),
    )
    known = next((code for words, code in kinds if re.search(words, label, re.IGNORECASE)), None)
    value = re.sub(r"[^a-z0-9]+", "-", label.casefold()).strip("-")[:_LONGEST_CODE] or "label"
    return known or hd.sr.CodedConcept(value, _SCHEME, label.replace("_", " ")[:LONGEST_TEXT])


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
    image = pydicom.dcmread(io.BytesIO(content), force=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they may quote the patient
        _in_utf8(image)
    return image


def _in_utf8(image: Any) -> None:
    """Decode all text by the sets that the file names, so that it is written in one that has every letter."""
    said = image.get("SpecificCharacterSet") or ""
    if said in _NO_SETS and _is_utf8(image):
        image.SpecificCharacterSet = _CHARACTER_SET
    image.decode()
    image.SpecificCharacterSet = _CHARACTER_SET


def _is_utf8(image: Any) -> bool:
    """Whether text of a file that names no character set is in UTF-8, as many write it."""
    from pydicom.datadict import DicomDictionary, dictionary_VR

    raw = {tag: image.get_item(tag) for tag in image.keys()}  # noqa: SIM118  (values would be decoded)
    texts = [
        item.value
        for tag, item in raw.items()
        if isinstance(item.value, bytes)
        and (item.VR or (dictionary_VR(tag) if tag in DicomDictionary else "")) in _TEXTS
    ]
    try:
        return any(not text.isascii() and bool(text.decode()) for text in texts)
    except UnicodeDecodeError:
        return False


def _fault(error: Exception) -> str:
    """The element that a library stumbled over; else the kind of error, because its text may quote the patient."""
    from pydicom.datadict import tag_for_keyword

    words = [word for word in re.findall(r"[A-Z][A-Za-z0-9]+", str(error)) if tag_for_keyword(word) is not None]
    return f"{' and '.join(dict.fromkeys(words))} ({type(error).__name__})" if words else type(error).__name__
