"""Chosen elements of a DICOM file's header, by a fast walk over its bytes or by pydicom: `read`.

Most files of an archive are explicit or implicit little-endian (DICOM PS3.5, 7.1): these are walked element by element
up to the last wanted tag, which takes a tenth of the time. Whatever is unusual is left to pydicom. Both give the
same bytes.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, ClassVar

import numpy as np

from segpipe.readers.dicom_files import careful, pydicom, refuse_deflated

TAGS: dict[str, int] = {
    "SpecificCharacterSet": 0x00080005,
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "StudyDate": 0x00080020,
    "SeriesDate": 0x00080021,
    "AcquisitionDate": 0x00080022,
    "ContentDate": 0x00080023,
    "AcquisitionDateTime": 0x0008002A,
    "StudyTime": 0x00080030,
    "SeriesTime": 0x00080031,
    "AcquisitionTime": 0x00080032,
    "ContentTime": 0x00080033,
    "AccessionNumber": 0x00080050,
    "Modality": 0x00080060,
    "Manufacturer": 0x00080070,
    "SeriesDescription": 0x0008103E,
    "ComplexImageComponent": 0x00089208,
    "AcquisitionContrast": 0x00089209,
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "IssuerOfPatientID": 0x00100021,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "ContrastBolusAgent": 0x00180010,
    "BodyPartExamined": 0x00180015,
    "ScanningSequence": 0x00180020,
    "SequenceVariant": 0x00180021,
    "ScanOptions": 0x00180022,
    "MRAcquisitionType": 0x00180023,
    "SequenceName": 0x00180024,
    "AngioFlag": 0x00180025,
    "SliceThickness": 0x00180050,
    "RepetitionTime": 0x00180080,
    "EchoTime": 0x00180081,
    "InversionTime": 0x00180082,
    "EchoNumbers": 0x00180086,
    "SpacingBetweenSlices": 0x00180088,
    "EchoTrainLength": 0x00180091,
    "ProtocolName": 0x00181030,
    "ContrastBolusStartTime": 0x00181042,
    "FlipAngle": 0x00181314,
    "DiffusionBValue": 0x00189087,
    "SiemensCreator": 0x00190010,
    "SiemensBValue": 0x0019100C,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "StudyID": 0x00200010,
    "SeriesNumber": 0x00200011,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "FrameOfReferenceUID": 0x00200052,
    "TemporalPositionIdentifier": 0x00200100,
    "SamplesPerPixel": 0x00280002,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
}
SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
LAST = max(TAGS.values())
PRIVATE: dict[str, tuple[str, int]] = {
    # by the start of Manufacturer: name and tag of the b-value, far behind the last of the others
    "GE ": ("GEBValue", 0x00431039),
    "PHILIPS": ("PhilipsBValue", 0x20011003),
}
_CREATORS = {"GECreator": 0x00430010, "PhilipsCreator": 0x20010010}
_NAMES = {tag: name for name, tag in (*TAGS.items(), *PRIVATE.values(), *_CREATORS.items())}
_AGENTS, _MEANING, AGENT = 0x00180012, 0x00080104, "AgentMeaning"
"""The code sequence of contrast agents, the meaning of a code, and what that of the first agent is called here."""
PIXEL_TAGS: dict[str, int] = {
    # what an image of one frame needs to be read, beside its pixels
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SliceThickness": 0x00180050,
    "EchoTime": 0x00180081,
    "SpacingBetweenSlices": 0x00180088,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "TemporalPositionIdentifier": 0x00200100,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
}
_PIXEL_NAMES = {tag: name for name, tag in PIXEL_TAGS.items()}
_PIXELS = 0x7FE00010
_SHORTS = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_DOUBLES, _FLOATS = ("DiffusionBValue",), ("PhilipsBValue",)
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_EXPLICIT, _IMPLICIT = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2"
_COMPRESSED = (b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5")  # explicit little-endian except for their pixels
_DIRECTORY = b"1.2.840.10008.1.3.10"
_UNDEFINED = 0xFFFFFFFF
_SHORT_HEAD = struct.Struct("<HH2sH").unpack_from  # tag, VR and length of most elements
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_GUIDES = ("Manufacturer", "ScanningSequence", "DiffusionBValue")  # what `_last` goes by
_MOST_LAYOUTS = 8
_PLAIN_SETS = ("", "ISO_IR 6", "ISO_IR 100", "ISO_IR 192")  # of which UTF-8 or else Latin-1 is the right reading
_MOST_NUMBER = 1e15
MOST_HEADER = 1 << 24  # bytes of a header with its sequences
FIRST = 1 << 14
_STEPS = (FIRST, 1 << 17, 1 << 21)  # bytes of the start of a file to look at, one after the other


class _Unusual(Exception):
    """The walk does not understand these bytes: pydicom has to look."""


@dataclass(frozen=True)
class Elements:
    """The wanted elements that a header has, as their bytes; `little` is the byte order of its numbers."""

    values: Mapping[str, bytes]
    little: bool = True

    def text(self, name: str) -> str:
        """An element as text without padding; empty where it is not there."""
        return _decoded(self.values.get(name, b"")).strip("\0 \t\r\n")

    def words_of_people(self, name: str) -> str:
        """An element as text in the character set that the file says (PS3.3, C.12.1.1.2), or as `text` gives it."""
        said = self.text("SpecificCharacterSet")
        if said in _PLAIN_SETS:
            return self.text(name)
        return _in_character_set(self.values.get(name, b""), said).strip("\0 \t\r\n")

    def words(self, name: str) -> tuple[str, ...]:
        """The values of an element, upper case."""
        text = self.text(name)
        return tuple(part.strip().upper() for part in text.split("\\")) if text else ()

    def numbers(self, name: str) -> tuple[float, ...]:
        """The values of an element as numbers; anything else is left out."""
        raw = self.values.get(name, b"")
        order = "<" if self.little else ">"
        if name in _SHORTS:
            return tuple(float(n) for n in struct.unpack(f"{order}{len(raw) // 2}H", raw[: len(raw) // 2 * 2]))
        if name in _DOUBLES:
            return tuple(struct.unpack(f"{order}{len(raw) // 8}d", raw[: len(raw) // 8 * 8]))
        if name in _FLOATS:
            return tuple(struct.unpack(f"{order}{len(raw) // 4}f", raw[: len(raw) // 4 * 4]))
        try:
            found = tuple(map(float, raw.split(b"\\")))
            if max(map(abs, found)) < _MOST_NUMBER:
                return found
        except ValueError:
            pass  # padded with zeros, or not all of them numbers
        return tuple(number for part in self.text(name).split("\\") if (number := _number(part)) is not None)

    def number(self, name: str) -> float | None:
        """The first value of an element as a number."""
        return next(iter(self.numbers(name)), None)


def read(file: BinaryIO, name: str, start: bytes | None = None) -> Elements | None:
    """The wanted elements of an open file; None if it is no DICOM file, or a DICOMDIR. Raises BadInput.

    Only elements of the top level are looked at, group by group in the order of their tags, and the name of the first
    agent in ContrastBolusAgentSequence, which some scanners write instead of ContrastBolusAgent. `start` are the first
    FIRST bytes, where they are read already.
    """
    if start is None:
        start = file.read(FIRST)
    if not is_dicom(start):
        return None
    with careful(name):
        for size in _STEPS:
            if len(start) < size and size > FIRST:
                start += file.read(size - len(start))
            try:
                return walked(start, whole=len(start) < size)
            except _More:
                continue
            except _Unusual:
                break
        file.seek(0)
        return parsed(file, name)
    raise AssertionError  # careful raises BadInput instead


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins so has the magic, or starts with group 8 as files without a preamble do."""
    if start[128:132] == b"DICM":
        return True
    if start[:2] != b"\x08\x00" or len(start) < 8:
        return False
    return start[4:6] in _SHORT_VRS or struct.unpack_from("<I", start, 4)[0] < (1 << 16)


class _More(_Unusual):
    """The bytes end before the last wanted tag."""


def walked(start: bytes, whole: bool = False) -> Elements | None:
    """The elements from the first bytes of a file; None for a DICOMDIR.

    `whole` says that these are all bytes of the file. Raises an exception of its own where pydicom must look.
    """
    if start[128:132] != b"DICM":
        raise _Unusual
    known = _Layout.of(start)
    if known is not None:
        return Elements(known)
    heads: list[tuple[int, int]] = []
    values: list[tuple[str, int, int]] = []
    place, syntax = _meta(start, heads)
    if syntax is None:
        return None
    if syntax not in (_EXPLICIT, _IMPLICIT) and not syntax.startswith(_COMPRESSED):
        raise _Unusual
    explicit, end, last, wanted = syntax != _IMPLICIT, len(start), 0, LAST
    while place + 8 <= end:
        group, element, kind, length = _SHORT_HEAD(start, place)
        tag, body = group << 16 | element, place + 8
        if not explicit or kind not in _SHORT_VRS:
            tag, length, body = _element(start, place, explicit)
        heads.append((place, body))
        if tag > wanted:
            if wanted == LAST:
                wanted = _last({name: start[one:behind] for name, one, behind in values})
            if tag > wanted:
                return Elements(_Layout.keep(start, heads, values))
        if tag <= last:
            raise _Unusual
        last = tag
        if tag == _AGENTS and length:
            values += _agent(start, body, length, explicit, heads)
        if length == _UNDEFINED:
            place = _behind_sequence(start, body, explicit, heads)
            continue
        place = body + length
        name = _NAMES.get(tag)
        if name is not None and length:
            if place > end:
                raise _More
            values.append((name, body, place))
    if whole and place == end:
        return Elements({name: start[one:behind] for name, one, behind in values})
    raise _More


class _Layout:
    """Where the elements of a header stand: those of one series nearly always stand at the same places.

    If all bytes that a walk goes by (tags, kinds, lengths, and the values that tell how far to go) are those of an
    earlier header, the walk would go the same way, so it is left out.
    """

    _known: ClassVar[list[_Layout]] = []

    def __init__(self, start: bytes, spans: Sequence[tuple[int, int]], values: Sequence[tuple[str, int, int]]):
        self._places = np.concatenate([np.arange(*span) for span in spans])
        self._bytes = np.frombuffer(start, np.uint8)[self._places].tobytes()
        self._end = spans[-1][1]
        self._values = tuple(values)

    @classmethod
    def of(cls, start: bytes) -> dict[str, bytes] | None:
        """The elements of a header that stand as those of an earlier one; None if they do not."""
        found = np.frombuffer(start, np.uint8)
        for one in cls._known:
            if one._end <= len(start) and found[one._places].tobytes() == one._bytes:
                return {name: start[begin:behind] for name, begin, behind in one._values}
        return None

    @classmethod
    def keep(
        cls, start: bytes, heads: Sequence[tuple[int, int]], values: Sequence[tuple[str, int, int]]
    ) -> dict[str, bytes]:
        """The elements at these places, which are kept in mind."""
        guides = [(begin, behind) for name, begin, behind in values if name in _GUIDES]
        last = heads[-1]
        one = cls(start, [*heads[:-1], *guides, last], values)
        cls._known = [one, *cls._known[: _MOST_LAYOUTS - 1]]
        return {name: start[begin:behind] for name, begin, behind in values}


def with_pixels(content: bytes) -> tuple[Elements, int, int] | None:
    """The elements of PIXEL_TAGS, and where the pixels begin and end; None where pydicom must look.

    Pixels are those of an uncompressed little-endian file.
    """
    try:
        if content[128:132] != b"DICM":
            return None
        heads: list[tuple[int, int]] = []
        place, syntax = _meta(content, heads)
        if syntax not in (_EXPLICIT, _IMPLICIT):
            return None
        found: dict[str, bytes] = {}
        explicit, end, last = syntax != _IMPLICIT, len(content), 0
        while place + 8 <= end:
            tag, length, body = _element(content, place, explicit)
            if tag <= last:
                return None
            last = tag
            if tag >= _PIXELS:
                is_usable = tag == _PIXELS and length != _UNDEFINED and body + length <= end
                return (Elements(found), body, body + length) if is_usable else None
            if length == _UNDEFINED:
                place = _behind_sequence(content, body, explicit, heads)
                continue
            place = body + length
            name = _PIXEL_NAMES.get(tag)
            if name is not None and length and place <= end:
                found[name] = content[body:place]
    except _Unusual:
        pass
    return None


def _last(found: Mapping[str, bytes]) -> int:
    """The last wanted tag: of echo-planar images without a public b-value, that of their vendor's own."""
    if "DiffusionBValue" in found or b"EP" not in found.get("ScanningSequence", b""):
        return LAST
    vendor = found.get("Manufacturer", b"").strip(b"\0 ").upper()
    return next((tag for name, (_, tag) in PRIVATE.items() if vendor.startswith(name.encode())), LAST)


def parsed(file: BinaryIO, name: str) -> Elements | None:
    """The elements by pydicom, for every transfer syntax that it knows."""
    refuse_deflated(file, name)
    dataset = _partial(file, LAST)
    if str(dataset.file_meta.get("MediaStorageSOPClassUID", "")).encode() == _DIRECTORY:
        return None
    found = _raw(dataset)
    last = _last(found)
    if last > LAST:
        file.seek(0)
        found = _raw(_partial(file, last))
    return Elements(found, bool(dataset.original_encoding[1]))


def _partial(file: BinaryIO, last: int) -> Any:
    """The data set up to a tag."""
    return pydicom().filereader.read_partial(
        file, stop_when=lambda tag, vr, length: tag > last, force=True, specific_tags=[*_NAMES, _AGENTS]
    )


def _raw(dataset: Any) -> dict[str, bytes]:
    found = {}
    for tag, label in _NAMES.items():
        value = dataset.get_item(tag).value if tag in dataset else None
        if label == "SpecificCharacterSet" and value:  # which pydicom has decoded already
            text = value if isinstance(value, str) else "\\".join(value)
            value = text.encode() + b" " * (len(text) % 2)
        if isinstance(value, bytes) and value:
            found[label] = value
    with contextlib.suppress(Exception):  # a broken sequence is no reason to refuse a file that is read without it
        meaning = dataset[_AGENTS].value[0].get_item(_MEANING).value if _AGENTS in dataset else b""
        if isinstance(meaning, bytes) and meaning:
            found[AGENT] = meaning
    return found


def _meta(start: bytes, heads: list[tuple[int, int]]) -> tuple[int, bytes | None]:
    """Where the data set begins, and its transfer syntax; None instead for a DICOMDIR. Adds what it goes by."""
    place, syntax = 132, b""
    while place + 8 <= len(start):
        if start[place : place + 2] != b"\x02\x00":
            return place, syntax
        tag, length, body = _element(start, place, True)
        if length > 1 << 16:
            raise _Unusual
        heads.append((place, body + length if tag in (0x00020002, 0x00020010) else body))
        value = start[body : body + length].rstrip(b"\0 ")
        if tag == 0x00020002 and value == _DIRECTORY:
            return body, None
        if tag == 0x00020010:
            syntax = value
        place = body + length
    raise _More


def _element(start: bytes, place: int, explicit: bool) -> tuple[int, int, int]:
    """Tag, length and place of the value of the element at `place`."""
    group, element = struct.unpack_from("<HH", start, place)
    tag = group << 16 | element
    if not explicit or group == 0xFFFE:
        return tag, struct.unpack_from("<I", start, place + 4)[0], place + 8
    kind = start[place + 4 : place + 6]
    if kind in _SHORT_VRS:
        return tag, struct.unpack_from("<H", start, place + 6)[0], place + 8
    if kind not in _LONG_VRS:
        raise _Unusual
    if place + 12 > len(start):
        raise _More
    length = struct.unpack_from("<I", start, place + 8)[0]
    if kind == b"UN" and length == _UNDEFINED:
        raise _Unusual
    return tag, length, place + 12


def _behind_sequence(start: bytes, place: int, explicit: bool, heads: list[tuple[int, int]]) -> int:
    """The place behind a sequence of undefined length whose first item stands at `place`."""
    while True:
        tag, length, place = _next(start, place, explicit, heads)
        if tag == _SEQUENCE_END:
            return place
        if tag != _ITEM:
            raise _Unusual
        place = _behind_item(start, place, explicit, heads) if length == _UNDEFINED else place + length


def _behind_item(start: bytes, place: int, explicit: bool, heads: list[tuple[int, int]]) -> int:
    while True:
        tag, length, place = _next(start, place, explicit, heads)
        if tag == _ITEM_END:
            return place
        place = _behind_sequence(start, place, explicit, heads) if length == _UNDEFINED else place + length


def _next(start: bytes, place: int, explicit: bool, heads: list[tuple[int, int]]) -> tuple[int, int, int]:
    """Tag, length and place of the value of the element at `place`, whose head is added to `heads`."""
    if place + 8 > len(start):
        raise _More
    tag, length, body = _element(start, place, explicit)
    heads.append((place, body))
    return tag, length, body


def _agent(
    start: bytes, place: int, length: int, explicit: bool, heads: list[tuple[int, int]]
) -> list[tuple[str, int, int]]:
    """Where the meaning of the first code of a sequence stands, whose items begin at `place`; adds what it goes by."""
    end = len(start) if length == _UNDEFINED else place + length
    if end > len(start):
        raise _More
    within: list[tuple[int, int]] = []
    while place + 8 <= end:
        tag, length, body = _element(start, place, explicit)
        within.append((place, body))
        if tag == _ITEM and not within[:-1]:
            place = body
            continue
        if tag > _MEANING or tag in (_ITEM_END, _SEQUENCE_END):
            break
        if length == _UNDEFINED:
            raise _Unusual  # no element before the meaning is a sequence
        place = body + length
        if tag == _MEANING:
            heads += within
            return [(AGENT, body, place)] if length else []
    heads += within
    return []


def _decoded(raw: bytes) -> str:
    """Text in UTF-8 or else Latin-1: words are looked for in it, and nothing is shown."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


@lru_cache(maxsize=1 << 10)
def _in_character_set(raw: bytes, said: str) -> str:
    try:
        charset = pydicom().charset
        text: str = charset.decode_bytes(raw, charset.convert_encodings(said.split("\\")), set())
    except (LookupError, ValueError):
        return _decoded(raw)
    return text


def _number(text: str) -> float | None:
    try:
        number = float(text.strip("\0 "))
    except ValueError:
        return None
    return number if abs(number) < _MOST_NUMBER else None
