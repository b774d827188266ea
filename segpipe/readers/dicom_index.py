"""DICOM files to series: headers are read and reduced where the files are; nothing that names anybody leaves.

A DICOM series is taken apart where its files show different things: other grids, directions, echoes, b-values, or
magnitude and phase. What is left has one grid and, except for times, one image at each position.
"""

import hashlib
import hmac
import json
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, BinaryIO

import numpy as np

from segpipe.errors import Reason
from segpipe.readers import dicom_tags, patients
from segpipe.readers.archive import Entry
from segpipe.readers.dicom_files import MOST_FRAMES, bad, careful, pydicom, refuse_deflated
from segpipe.readers.dicom_tags import SEGMENTATION, Elements
from segpipe.readers.recognise import LETTERS, Recognition, recognise

ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3", "1.2.840.10008.5.1.4.1.1.4.4")
_IMAGES = "1.2.840.10008.5.1.4.1.1."
_SAME_DIRECTION = math.cos(math.radians(0.5))
_PER_FRAME = 0x52009230
_GE_MARK = 100000  # GE adds a multiple of it to the b-values of some protocols
_SHIFT_DAYS = 36500
_DAY = 86400.0
_CLOCK = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9]|60)?[0-9]*(\.[0-9]+)?(?:\W.*)?")  # at least hhmm
_SAME_PLACE_MM = 1e-2

COMPONENTS = ("magnitude", "phase", "real", "imaginary")
"""In the order in which the volumes of an enhanced file are read."""

_VENDORS = (
    "siemens", "ge", "philips", "canon", "toshiba", "hitachi", "united imaging", "uih", "bruker", "fujifilm", "neusoft",
    "nms", "esaote", "hyperfine", "marconi", "picker",
)  # fmt: skip
PHANTOM = "PHANTOM"
"""The body part of what is no patient."""
_PHANTOM_WORDS = re.compile(r"(?<![a-z])(?:phantom|fantom[ae]?)(?![a-z])")
_BRAIN_WORDS = re.compile(
    r"(?<![a-z])(?:brain|cerebr|enceph|encefal|kopf|schadel|schaedel|g?e?hirn|crane|crani(?!o?[\W_]?(?:cerv|vert|caud|spin))|tete|hersen|mozg|glow[ay]\b)"
)
# Values of ImageType and BodyPartExamined that may be told; any other is left out.
_IMAGE_TYPES = frozenset(
    re.findall(
        r"\w+",
        "I T ORIGINAL DERIVED PRIMARY SECONDARY LOCALIZER M P R I MAGNITUDE PHASE REAL IMAGINARY ND NORM DIS2D"
        " DIS3D MOSAIC OTHER MPR REFORMATTED AVERAGE PROJECTION MIP MNIP MINIP MAX_IP MIN_IP ADC EADC FA TRACEW"
        " TRACE DIFFUSION PERFUSION CBF CBV MTT TTP RELCBF RELCBV SUBTRACTION SUB SWI MINIMUM MAXIMUM M_SE M_FFE"
        " M_IR M_TSE SE FFE IR T1 T2 T2_STAR R2 B0 FMRI FILTERED ADDITION NONE MIXED VOLUME CSA RESAMPLED SCREEN"
        " TENSOR DENSITY MAP UNI INV1 INV2 FM4 COMBINED DIXON WATER FAT IN_PHASE OPP_PHASE FRACTION",
    )
)
# of a Dixon series, as Philips and others write them
_DIXON = {"W": "WATER", "F": "FAT", "IP": "IN_PHASE", "OP": "OPP_PHASE", "OUT_PHASE": "OPP_PHASE"}
_DIXON |= {name: name for name in ("IN_PHASE", "OPP_PHASE")}  # no image of phases
_BODY_PARTS = frozenset(
    re.findall(
        r"\w+",
        "HEAD BRAIN SKULL HEADNECK NEURO CRANIUM KOPF SCHADEL ENCEPHALE TETE CABEZA CEREBRO ENCEFALO SPINE CSPINE"
        " TSPINE LSPINE CTSPINE TLSPINE LSSPINE SSPINE WHOLESPINE NECK CHEST ABDOMEN PELVIS KNEE SHOULDER HIP ANKLE"
        " FOOT HAND WRIST ELBOW BREAST HEART PROSTATE LIVER EXTREMITY ORBIT IAC PITUITARY EAR FACE JAW TMJ WHOLEBODY"
        " ARM LEG THIGH UNKNOWN PHANTOM",
    )
)
# of PS3.3 C.7.3.1.1.1, as far as they are found beside MR; any other may be somebody's name, and is told as `OT`
_MODALITIES = frozenset(
    re.findall(
        r"\w+",
        "MR CT PT NM US XA CR DX DR RF MG SC OT SEG SR KO PR DOC REG RWV RTSTRUCT RTDOSE RTPLAN RTIMAGE RTRECORD ECG"
        " EEG OPT OP SM XC GM ES IVUS ANN ASMT AU HD PLAN FID M3D MS MA CS ST OCT BI",
    )
)
_CONTRAST_WORDS = re.findall(
    r"\w+",
    "DIFFUSION FLOW_ENCODED FLUID_ATTENUATED PERFUSION PROTON_DENSITY STIR T1 T2 T2_STAR TAGGING TOF SPIN_TAGGING"
    " SUSCEPTIBILITY MIXED",
)
# what people type where no agent was given, as `NONE GIVEN`, `OHNE KM` or `0 ml`
_NO_AGENT = re.compile(
    r"|N|N/?A|NIL|NULL|OFF|NON|NON ?CON\w*"
    r"|(?:NONE|NOT|NO(?!\W*\d)|WITHOUT|W/?O|OHNE|SANS|SIN|SEM|SENZA|ZONDER|KEINE?|NATIV\w*|UNENHANCED|PRE|BRAK|BEZ|BREZ"
    r"|NIE|YOK|NINCS|EI|INGEN|UTAN|UDEN|UTEN|GEEN|NESSUN\w*|AUCUN\w*|NINGUN\w*|NENHUM\w*|[ZŽ][AÁ]DN\w*|НЕТ|БЕЗ)(?:\b.*)?"
    r"|0+(?:[.,]0+)?(?: ?(?:ML|CC|MMOL|M?G)\b.*)?"
)


@dataclass(frozen=True)
class Facts:
    """What the headers of one series say, identities as keyed hashes; lengths in mm, times in ms, `moment` in seconds.

    `moment` counts from a day of the patient's own, so that only differences mean something. `said` is what the
    description says, `protocol_said` what the protocol does; `text` is a keyed hash of both.
    """

    subject: str
    study: str
    day: str | None
    accession: str | None
    series: str
    frame: str | None
    modality: str
    kind: str  # image, enhanced, segmentation, other
    vendor: str | None
    body: str | None
    image_type: tuple[str, ...]
    sequence: tuple[str, ...]
    variant: tuple[str, ...]
    dimensions: str | None
    echo_planar: bool
    angiography: bool
    acquisition_contrast: str | None
    component: str
    echo_time: float | None
    repetition_time: float | None
    inversion_time: float | None
    flip_angle: float | None
    b_values: tuple[float, ...]
    rows: int
    columns: int
    pixel_mm: tuple[float, ...]
    thickness_mm: float | None
    direction: tuple[float, ...]
    agent: bool | None
    bolus: float | None
    number: int | None
    moment: float | None
    said: Recognition
    protocol_said: Recognition
    text: str
    override: str | None = None
    volumes: int = 1  # of one enhanced file
    parts: tuple[
        tuple[float, str], ...
    ] = ()  # echo time, ms, and component of each, where nothing else tells them apart
    refers_to: tuple[str, ...] = ()
    person: tuple[str, ...] = ()  # birth date, sex, words of the name, issuer of the ID; empty where not said
    nameless: bool = False  # the patient's ID is a placeholder, or none where `who` says whose it is
    who: str = ""  # birth date, sex and name together, the same under every ID; empty where one is not said
    spelled: str = ""  # the patient's ID, the same in small letters and without zeros before its numbers
    names_brain: bool = False  # words of its description or protocol do
    is_colour: bool = False

    @property
    def plane(self) -> str | None:
        """axial, coronal, sagittal, or oblique where no axis is near."""
        if len(self.direction) != 6:
            return None
        normal = np.abs(np.cross(self.direction[:3], self.direction[3:]))
        return ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() > 0.8 else "oblique"


@dataclass(frozen=True)
class Instance:
    """One file of a series: `image` is the hash of its instance, `height` of its slice along the normal, mm."""

    entry: Entry
    image: int
    height: float
    moment: float | None


@dataclass
class Series:
    """One series: what its files have in common, and the files packed, for a driver holds all series of an archive.

    `size` is that of all files, bytes; `heights` are those of the slices along the normal, mm, float64; `first` is the
    first path; `volume` tells enhanced files of one series apart, of which `phases` show the same place; `files` are
    compressed lists, see `entries`, and `images` the hashes of their instances, uint64. Without a `volume`, heights
    stand in the order of the files.
    """

    facts: Facts
    count: int
    size: int
    moment: float | None
    first: str
    heights: np.ndarray
    files: tuple[bytes, ...]
    images: tuple[np.ndarray, ...] = ()
    volume: int | None = None
    phases: int = 1

    @classmethod
    def of(cls, facts: Facts, members: Sequence[Instance], heights: Sequence[float] = ()) -> "Series":
        """The series of some files; `heights` are those of the frames where the files have several."""
        members = sorted(members, key=lambda member: member.entry)
        entries = [member.entry for member in members]
        moments = [member.moment for member in members if member.moment is not None]
        return cls(
            facts=facts,
            count=len(members),
            size=sum(entry.bytes for entry in entries),
            moment=min(moments) if moments else facts.moment,
            first=min(entry.path for entry in entries),
            heights=np.array(heights or [member.height for member in members], np.float64),
            files=(_packed(entries),),
            images=(np.array([member.image for member in members], np.uint64),),
            volume=members[0].image if heights else None,
        )

    @classmethod
    def known(
        cls, facts: Facts, entries: Sequence[Entry], images: np.ndarray, heights: np.ndarray, moments: np.ndarray,
        frames: bool
    ) -> "Series":  # fmt: skip
        """The series of files that were read before, in one order; `moments` are NaN where none is known.

        `frames` says that `heights` are those of the frames of the only file.
        """
        ordered = sorted(entries)
        if ordered != list(entries):
            order = sorted(range(len(entries)), key=lambda place: entries[place])
            images, heights = images[order], heights if frames else heights[order]
        known = moments[~np.isnan(moments)]
        return cls(
            facts=facts,
            count=len(entries),
            size=sum([entry[1] for entry in ordered]),
            moment=float(known.min()) if len(known) else facts.moment,
            first=ordered[0].path,
            heights=heights.copy(),
            files=(_packed(ordered),),
            images=(images.astype(np.uint64),),
            volume=int(images[0]) if frames else None,
        )

    def add(self, other: "Series") -> None:
        """Take in the files of another part of this series."""
        moments = [moment for moment in (self.moment, other.moment) if moment is not None]
        self.count += other.count
        self.size += other.size
        self.moment = min(moments) if moments else None
        self.first = min(self.first, other.first)
        self.heights = np.concatenate([self.heights, other.heights])
        self.files += other.files
        self.images += other.images
        if other.facts.agent and not self.facts.agent:
            self.facts = replace(self.facts, agent=True)

    def drop_copies(self) -> list[tuple[Entry, Entry]]:
        """Leave out files whose instance another has, that with the lesser path; gives each with the one that stays.

        Parts of a series are read in different tasks, none of which sees the copies that another has.
        """
        images = np.concatenate(self.images) if self.images else np.zeros(0, np.uint64)
        if len(np.unique(images)) == len(images):
            return []
        entries = [entry for part in self.files for entry in _unpacked(part)]
        stays: dict[int, int] = {}
        for place in sorted(range(len(entries)), key=lambda place: entries[place]):
            stays.setdefault(int(images[place]), place)
        kept = sorted(stays.values(), key=lambda place: entries[place])
        twice = [(one, entries[stays[int(image)]]) for one, image in zip(entries, images, strict=True)]
        if self.volume is None:
            self.heights = self.heights[kept]
        else:  # copies of one enhanced file
            self.heights = self.heights[: len(self.heights) // len(entries)]
        self.files, self.images = (_packed([entries[place] for place in kept]),), (images[kept],)
        self.count, self.size = len(kept), sum(entries[place].bytes for place in kept)
        return [(one, first) for one, first in twice if one is not first]

    def entries(self) -> list[Entry]:
        """All files in the order of their paths."""
        return sorted(entry for part in self.files for entry in _unpacked(part))

    @property
    def places(self) -> list[float]:
        """Heights of its slices along the normal, mm, each once."""
        heights = np.sort(self.heights)
        return heights[np.r_[True, np.diff(heights) > _SAME_PLACE_MM]].tolist()

    @property
    def step_mm(self) -> float | None:
        """The usual distance between slices."""
        places = self.places
        return float(np.median(np.diff(places))) if len(places) > 1 else self.facts.thickness_mm

    @property
    def volumes(self) -> int:
        """How often each position is in its files, rounded down."""
        return max(1, len(self.heights) // max(1, len(self.places)))

    @property
    def times(self) -> int:
        """How often each position is in its DICOM series, rounded down."""
        return self.volumes * self.phases


def _packed(entries: Sequence[Entry]) -> bytes:
    """Files in the order of their paths, small: a column after the other, because names are alike; none holds a NUL."""
    columns = [*[one[0] for one in entries], *[str(one[1]) for one in entries], *[one[2] for one in entries]]
    return zlib.compress("\0".join(columns).encode(errors="surrogatepass"), 1)


def _unpacked(content: bytes) -> list[Entry]:
    words = zlib.decompress(content).decode(errors="surrogatepass").split("\0")
    count = len(words) // 3
    return list(map(Entry, words[:count], map(int, words[count : 2 * count]), words[2 * count :]))


@dataclass(frozen=True)
class Header:
    """One file: what tells its series (`group`), its own facts, and its elements for the facts of the series."""

    group: tuple[bytes | None, ...]
    elements: Elements
    entry: Entry

    @cached_property
    def has_sequences(self) -> bool:
        """Whether what tells its images stands in sequences: enhanced images and SEG objects."""
        several = "NumberOfFrames" in self.elements.values and (self.elements.number("NumberOfFrames") or 1) > 1
        return several or self.elements.text("SOPClassUID") in (*ENHANCED, *SEGMENTATION)


_GROUP = re.findall(
    r"\w+",
    "SOPClassUID Modality PatientID StudyInstanceUID SeriesInstanceUID ImageType EchoTime EchoNumbers"
    " DiffusionBValue SiemensBValue GEBValue PhilipsBValue ComplexImageComponent Rows Columns PixelSpacing"
    " ImageOrientationPatient ContrastBolusAgent AgentMeaning SeriesDescription InversionTime",
)


def header(file: BinaryIO, entry: Entry, start: bytes | None = None) -> Header | None:
    """The header of an open file; None if it is no DICOM image. Raises BadInput for a broken one.

    `start` are its first bytes, where they are read already.
    """
    elements = dicom_tags.read(file, entry.path, start)
    if elements is None or not elements.values.get("Rows", b"").strip(b"\0"):
        return None
    return Header(tuple(map(elements.values.get, _GROUP)), elements, entry)


class Reducer:
    """Headers, one after the other, to series; `key` is the secret of the hashes, `overrides` are roles by text."""

    def __init__(self, key: bytes, overrides: "Mapping[str, str] | None" = None):
        self._key = key
        self._image_key = hashlib.sha256(b"image" + key).digest()
        self._overrides = overrides or {}
        self._groups: dict[tuple[Any, ...], Group] = {}
        self._images: dict[int, Entry] = {}

    def add(self, one: Header, file: BinaryIO | None = None) -> Entry | None:
        """Add a file; where its image is there already, the file that has it. Raises BadInput for a broken file.

        `file` is the open file, for kinds whose facts stand in sequences.
        """
        elements, entry = one.elements, one.entry
        identity = f"{elements.text('SeriesInstanceUID')}\0{elements.text('SOPInstanceUID') or entry.path}"
        image = self._image(identity)
        first = self._images.setdefault(image, entry)
        if first is not entry:
            return first
        several = one.has_sequences
        group = (*one.group, image if several else None)
        with careful(entry.path):
            found = self._groups.get(group)
            if found is None:
                facts = _facts(elements, entry, self._key, self._overrides)
                heights: tuple[float, ...] = ()
                if several and file is not None:
                    facts, heights = _with_frames(facts, elements, file, entry, self._key)
                found = self._groups[group] = Group(facts, heights, _shift(self._key, facts.subject))
            found.members.append(Instance(entry, image, _height(elements, found.facts), _moment(elements, found.shift)))
        return None

    def _image(self, identity: str) -> int:
        """The keyed hash of an instance."""
        content = identity.encode(errors="replace")
        return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=self._image_key).digest(), "big")

    def know(self, image: int, entry: Entry) -> None:
        """Note an image that was read in an earlier run, so that a copy of it is seen."""
        self._images.setdefault(image, entry)

    def groups(self) -> "list[Group]":
        """The files that were added, by series."""
        return list(self._groups.values())

    def parts(self) -> list[Series]:
        """What was read so far: series, which may have parts elsewhere."""
        return [Series.of(one.facts, one.members, one.heights) for one in self._groups.values()]

    def series(self) -> list[Series]:
        """All series so far, those of one direction up to half a degree together."""
        return merged(self.parts())


@dataclass
class Group:
    """Files whose headers are the same in all that tells series apart; `heights` are those of an enhanced file."""

    facts: Facts
    heights: tuple[float, ...]
    shift: float
    members: list[Instance] = field(default_factory=list)


def merged(parts: Iterable[Series]) -> list[Series]:
    """Parts of series, from several folders or with directions that differ by rounding, put together."""
    found: dict[tuple[Any, ...], list[Series]] = {}
    for part in sorted(parts, key=lambda one: one.first):
        facts = part.facts
        times = tuple(None if t is None else round(t, 1) for t in (facts.echo_time, facts.inversion_time))
        alike = (facts.subject, facts.study, facts.series, facts.rows, facts.columns, facts.component, facts.b_values)
        group = found.setdefault((*alike, times, "DERIVED" in facts.image_type, _kind(facts), part.volume), [])
        same = next((one for one in group if _same_direction(one.facts.direction, facts.direction)), None)
        if same is None:
            group.append(replace(part))
        else:
            same.add(part)
    series = [one for group in found.values() for one in group]
    _count_phases(series)
    return _named_apart(series)


def _count_phases(series: Sequence[Series]) -> None:
    """How many enhanced files of one DICOM series show the same place: each of them is one time of a dynamic series."""
    alike: dict[tuple[Any, ...], list[Series]] = {}
    for one in series:
        if one.volume is not None and len(one.heights):
            facts, places = one.facts, one.places
            what = (facts.subject, facts.study, facts.series, facts.plane, facts.component, facts.b_values)
            times = (facts.echo_time, facts.inversion_time, "DERIVED" in facts.image_type, _kind(facts))
            where = (len(places), round(places[0], 1), round(places[-1], 1))
            alike.setdefault((*what, *times, *where), []).append(one)
    for phases in alike.values():
        for one in phases:
            one.phases = len(phases)


def _named_apart(series: list[Series]) -> list[Series]:
    """Parts of one DICOM series get ids of their own, by what tells them apart."""
    by_id: dict[str, list[Series]] = {}
    for one in series:
        by_id.setdefault(one.facts.series, []).append(one)
    for name, same in by_id.items():
        digests = [_digest(_apart(one.facts), 4) for one in same] if len(same) > 1 else [""]
        often = Counter(digests)
        for one, digest in zip(same, digests, strict=True):
            if often[digest] > 1:
                digest = _digest((*_apart(one.facts), *_further_apart(one)), 12)
            if digest:
                one.facts = replace(one.facts, series=f"{name}-{digest}")
    return series


def _apart(facts: Facts) -> tuple[Any, ...]:
    times = facts.echo_time, facts.inversion_time
    return facts.rows, facts.columns, facts.component, facts.b_values, *times, facts.plane, facts.image_type


def _further_apart(one: Series) -> tuple[Any, ...]:
    """What tells parts apart that show the same: direction, file, and whose they are."""
    direction = tuple(round(number, 3) + 0.0 for number in one.facts.direction)
    return one.facts.subject, one.facts.study, direction, one.volume


def _digest(values: tuple[Any, ...], digits: int) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:digits]


_KINDS = ("LOCALIZER", "ADC", "EADC", "FA", "PHASE", "MPR", "MIP", "WATER", "FAT", "IN_PHASE", "OPP_PHASE")


def _kind(facts: Facts) -> tuple[str, ...]:
    return tuple(word for word in facts.image_type[2:] if word in _KINDS)


def keyed(key: bytes, kind: str, text: str) -> str:
    """A keyed hash of an identity, 16 hexadecimal digits."""
    return hmac.new(key, f"{kind}\0{text}".encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:16]


_SEQUENCES = ("SE", "IR", "GR", "EP", "RM")
_VARIANTS = ("SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP")


def _facts(elements: Elements, entry: Entry, key: bytes, overrides: Mapping[str, str]) -> Facts:
    fallback = f"folder {entry.folder}"
    study = elements.text("StudyInstanceUID") or fallback
    patient, marks = elements.text("PatientID"), patients.marks(elements)
    who = keyed(key, "who", "\0".join(marks[: patients.ISSUER])) if all(marks[: patients.ISSUER]) else ""
    subject = keyed(key, "patient", patient) if patient else keyed(key, "study", who or study)
    series, frame = elements.text("SeriesInstanceUID") or fallback, elements.text("FrameOfReferenceUID")
    description, protocol = map(elements.words_of_people, ("SeriesDescription", "ProtocolName"))
    sequence, name = elements.words("ScanningSequence"), elements.text("SequenceName").lower()
    words, vendor = _image_type(elements), elements.text("Manufacturer").lower()
    shift = _shift(key, subject)
    return Facts(
        subject=subject,
        study=keyed(key, "session", study),
        day=_keyed_of(key, "day", subject, elements.text("StudyDate")),
        accession=_keyed_of(key, "accession", subject, elements.text("AccessionNumber")),
        series=keyed(key, "series", series),
        frame=keyed(key, "frame", frame) if frame else None,
        modality=_modality(elements.text("Modality").upper()),
        kind=_sop_kind(elements.text("SOPClassUID")),
        vendor=_vendor(vendor),
        body=_body(elements, description),
        image_type=words,
        sequence=tuple(word for word in sequence if word in _SEQUENCES),
        variant=tuple(word for word in elements.words("SequenceVariant") if word in _VARIANTS),
        dimensions=next((word for word in elements.words("MRAcquisitionType") if word in ("2D", "3D")), None),
        echo_planar="EP" in sequence or name.lstrip("*").startswith("ep"),
        angiography=elements.text("AngioFlag").upper() == "Y",
        acquisition_contrast=_contrast_word(elements.text("AcquisitionContrast")),
        component=_component(elements, words),
        echo_time=elements.number("EchoTime"),
        repetition_time=elements.number("RepetitionTime"),
        inversion_time=elements.number("InversionTime") or None,
        flip_angle=elements.number("FlipAngle"),
        b_values=_b_values(elements, name),
        rows=int(elements.number("Rows") or 0),
        columns=int(elements.number("Columns") or 0),
        pixel_mm=elements.numbers("PixelSpacing")[:2],
        thickness_mm=elements.number("SliceThickness"),
        direction=_direction(elements.numbers("ImageOrientationPatient")),
        agent=_has_agent(elements),
        bolus=_bolus(elements, shift),
        number=int(elements.number("SeriesNumber") or 0) or None,
        moment=_moment(elements, shift),
        said=recognise(description),
        protocol_said=recognise(protocol),
        text=keyed(key, "text", f"{description}\0{protocol}"),
        override=_override(overrides, (description, protocol, series), vendor),
        person=tuple(_keyed_words(key, subject, mark) for mark in marks),
        who=who,
        spelled=keyed(key, "spelled", patients.as_spelled(patient)) if patient else "",
        nameless=patients.is_placeholder(patient) if patient else bool(who),
        names_brain=_BRAIN_WORDS.search(_plain(f"{description} {protocol}")) is not None,
        is_colour=(elements.number("SamplesPerPixel") or 1) > 1,
    )


def _keyed_of(key: bytes, kind: str, subject: str, text: str) -> str | None:
    """A keyed hash that says nothing of other subjects who have the same; None for no text."""
    return keyed(key, kind, f"{subject} {text}") if text else None


def _keyed_words(key: bytes, subject: str, text: str) -> str:
    """The same for each word of what tells people of one PatientID apart."""
    return " ".join(keyed(key, "person", f"{subject} {word}") for word in text.split())


def _override(overrides: Mapping[str, str], texts: tuple[str, ...], manufacturer: str) -> str | None:
    """The role that the site's own map gives: by `vendor<tab>description`, by description or protocol, by UID.

    The vendor is written as in headers or as in the table `series`.
    """
    for text in texts:
        for vendor in (f"{manufacturer}\t", f"{_vendor(manufacturer)}\t", ""):
            if text and (role := overrides.get(f"{vendor}{text.casefold()}")):
                return role
    return None


def _vendor(manufacturer: str) -> str | None:
    return next((known for known in _VENDORS if manufacturer.startswith(known)), None)


def _sop_kind(sop_class: str) -> str:
    if sop_class in SEGMENTATION:
        return "segmentation"
    if sop_class in ENHANCED:
        return "enhanced"
    return "image" if sop_class.startswith(_IMAGES) or not sop_class else "other"


def _image_type(elements: Elements) -> tuple[str, ...]:
    words = []
    for place, value in enumerate(elements.words("ImageType")):
        dixon = _DIXON.get(value) if place > 1 else None
        parts = value.replace("_", " ").split()
        if any(part.startswith(("SAT", "SUP")) for part in parts):
            continue  # FAT_SAT is no image of fat
        words += [dixon] if dixon else [value, *parts]
    return tuple(dict.fromkeys(word for word in words if word in _IMAGE_TYPES))


def _modality(text: str) -> str:
    return text if text in _MODALITIES or not text else "OT"


def _plain(text: str) -> str:
    """Lower case without accents."""
    letters = unicodedata.normalize("NFKD", text).translate(LETTERS)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold()


def _body(elements: Elements, description: str) -> str | None:
    """The part of the body in one of the known words; what a description calls a phantom is one, whatever it imitates.

    A name tells nothing here: de-identified patients have been called all sorts of things.
    """
    if _PHANTOM_WORDS.search(_plain(description)):
        return PHANTOM
    word = "".join(letter for letter in elements.text("BodyPartExamined").upper() if letter.isalpha())
    if not word:
        return None
    return word if word in _BODY_PARTS else "UNKNOWN"


def _is_agent(text: str) -> bool:
    """Whether the name of a contrast agent is one, and does not say that there was none."""
    return _NO_AGENT.fullmatch(text.upper().strip(" .-")) is None


def _has_agent(elements: Elements) -> bool | None:
    """Whether a contrast agent was given; None if nothing is said of it."""
    if not {"ContrastBolusAgent", dicom_tags.AGENT} & elements.values.keys():
        return None
    return _is_agent(elements.text("ContrastBolusAgent") or elements.text(dicom_tags.AGENT))


def _contrast_word(text: str) -> str | None:
    return text.upper() if text.upper() in _CONTRAST_WORDS else None


def _component(elements: Elements, words: tuple[str, ...]) -> str:
    """magnitude, phase, real or imaginary."""
    said = elements.text("ComplexImageComponent").upper()
    for name, letters in (("phase", "P"), ("real", "R"), ("imaginary", "I")):
        if said == name.upper() or letters in words[2:] or name.upper() in words[2:]:
            return name
    return "magnitude"


def _b_values(elements: Elements, sequence_name: str) -> tuple[float, ...]:
    values = list(elements.numbers("DiffusionBValue"))
    if elements.text("SiemensCreator").upper().startswith("SIEMENS"):
        values += elements.numbers("SiemensBValue")
    if elements.text("GECreator").upper().startswith("GEMS_PARM"):
        values += [number % _GE_MARK for number in elements.numbers("GEBValue")[:1]]
    if elements.text("PhilipsCreator").upper().startswith("PHILIPS IMAGING"):
        values += elements.numbers("PhilipsBValue")
    if not values and sequence_name.lstrip("*").startswith("ep_b"):
        digits = "".join(
            letter for letter in sequence_name.partition("ep_b")[2].split("#")[0] if letter in "0123456789"
        )
        values = [float(digits)] if digits else []
    return tuple(sorted({float(value) for value in values}))


def _direction(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return numbers if len(numbers) == 6 and all(map(math.isfinite, numbers)) and any(numbers) else ()


def _same_direction(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    if len(one) != 6 or len(other) != 6:
        return one == other
    pairs = ((np.array(a), np.array(b)) for a, b in ((one[:3], other[:3]), (one[3:], other[3:])))
    return all(a @ b >= _SAME_DIRECTION * np.linalg.norm(a) * np.linalg.norm(b) for a, b in pairs)


def _height(elements: Elements, facts: Facts) -> float:
    position = elements.numbers("ImagePositionPatient")
    if len(position) != 3 or len(facts.direction) != 6:
        return 0.0
    a, b, c, d, e, f = facts.direction
    return position[0] * (b * f - c * e) + position[1] * (c * d - a * f) + position[2] * (a * e - b * d)


def _shift(key: bytes, subject: str) -> float:
    """Seconds, other ones for every patient: what is kept tells no date."""
    return int.from_bytes(hmac.digest(key, f"shift {subject}".encode(), "sha256")[:4], "big") % (_SHIFT_DAYS * 86400)


def _moment(elements: Elements, shift: float) -> float | None:
    """When the image was acquired; None if that is not said."""
    values = elements.values
    both = elements.text("AcquisitionDateTime") if "AcquisitionDateTime" in values else ""
    at = _seconds(both[:8], both[8:]) if len(both) >= 12 else None
    for date, time in (("AcquisitionDate", "AcquisitionTime"), ("SeriesDate", "SeriesTime")):
        if at is None and time in values:
            at = _in_study(elements, elements.text(date), elements.text(time))
    return None if at is None else at - shift


def _bolus(elements: Elements, shift: float) -> float | None:
    time = elements.text("ContrastBolusStartTime")
    if not time.strip("0:."):
        return None  # midnight is what software writes that does not know the time
    at = _in_study(elements, elements.text("AcquisitionDate"), time)
    return None if at is None else at - shift


def _in_study(elements: Elements, date: str, time: str) -> float | None:
    """Seconds of a time of a study since 1970.

    Where its own date is missing, or was made that of the study, a time long before the study's is past midnight.
    """
    day = date or elements.text("StudyDate") or "20000101"
    at = _seconds(day, time)
    is_late = elements.values.get("StudyTime", b"") >= b"12"  # else it cannot be half a day before the study
    if at is None or at % _DAY >= _DAY / 2 or not is_late or day != (elements.text("StudyDate") or day):
        return at
    begun = _seconds(day, elements.text("StudyTime"))
    return at + _DAY if begun is not None and begun - at > _DAY / 2 else at


@lru_cache(maxsize=1 << 10)
def _day(date: str) -> float | None:
    """Seconds from 1970 to a DICOM date."""
    try:
        day = datetime.strptime(date.replace(".", "").replace("-", "")[:8], "%Y%m%d")
    except ValueError:
        return None
    return (day - datetime(1970, 1, 1)).total_seconds()


def _seconds(date: str, time: str) -> float | None:
    """Seconds of a DICOM date and time since 1970; None if either is not valid."""
    found = _CLOCK.fullmatch(time.replace(":", ""))
    day = _day(date) if found else None
    if found is None or day is None:
        return None
    hours, minutes, seconds, fraction = found.groups()
    return day + 3600 * int(hours) + 60 * int(minutes) + int(seconds or 0) + float(fraction or 0)


# Files of several frames


def _with_frames(
    facts: Facts, elements: Elements, file: BinaryIO, entry: Entry, key: bytes
) -> tuple[Facts, tuple[float, ...]]:
    """The facts with what the functional groups of a file say, and the heights of its frames."""
    file.seek(0)
    refuse_deflated(file, entry.path)
    if (elements.number("NumberOfFrames") or 1) > MOST_FRAMES:
        message = f"{entry.path} has more than {MOST_FRAMES} frames"
        bad(Reason.TOO_LARGE, message, "split it into several files")
    dataset = pydicom().filereader.read_partial(file, stop_when=lambda tag, vr, length: tag > _PER_FRAME, force=True)
    if facts.kind == "segmentation":
        segments = dataset.get("SegmentSequence") or ()
        drawn = [one for one in segments if str(one.get("SegmentAlgorithmType") or "") != "AUTOMATIC"]
        refers_to = tuple(sorted(_referred(dataset, key))) if len(drawn) == len(segments) else ()
        return replace(facts, refers_to=refers_to, volumes=len(segments)), ()
    frames = [_Frame.of(group, dataset) for group in dataset.get("PerFrameFunctionalGroupsSequence") or ()]
    facts = _with_pulses(facts, dataset)
    if not frames:
        return facts, ()
    first = frames[0]
    direction = facts.direction or _direction(first.direction)
    facts = replace(
        facts,
        direction=direction,
        pixel_mm=facts.pixel_mm or first.pixel_mm,
        thickness_mm=facts.thickness_mm if facts.thickness_mm is not None else first.thickness_mm,
        echo_time=facts.echo_time if facts.echo_time is not None else first.echo_time,
        repetition_time=facts.repetition_time if facts.repetition_time is not None else first.repetition_time,
        inversion_time=facts.inversion_time or first.inversion_time,
        b_values=tuple(sorted({*facts.b_values, *(f.b_value for f in frames if f.b_value is not None)})),
        acquisition_contrast=facts.acquisition_contrast or _contrast_word(first.contrast),
        component="magnitude" if len({f.component for f in frames}) > 1 else first.component or facts.component,
        volumes=len({(f.echo_time, f.b_value, f.component, f.stack, f.inversion_time) for f in frames}),
        agent=facts.agent if first.agent is None else first.agent,
    )
    if len({(f.b_value, f.stack, f.inversion_time) for f in frames}) == 1:
        parts = {(f.echo_time or 0.0, f.component or "magnitude") for f in frames}
        facts = replace(facts, parts=tuple(sorted(parts, key=lambda part: (part[0], COMPONENTS.index(part[1])))))
    normal = np.cross(direction[:3], direction[3:]) if direction else np.zeros(3)
    heights = [float(np.dot(frame.position, normal)) for frame in frames if len(frame.position) == 3]
    return facts, tuple(sorted(heights))


def _with_pulses(facts: Facts, dataset: Any) -> Facts:
    """The facts with what enhanced images say in words of their own, where others have ScanningSequence and so on:
    the kinds of echo and pulse (PS3.3 C.8.13.4), and the agent (C.7.6.4b).
    """
    echo = str(dataset.get("EchoPulseSequence") or "").upper()
    is_planar = str(dataset.get("EchoPlanarPulseSequence") or "").upper() == "YES"
    sequence = ("SE",) * (echo in ("SPIN", "BOTH")) + ("GR",) * (echo in ("GRADIENT", "BOTH"))
    sequence += ("IR",) * (str(dataset.get("InversionRecovery") or "").upper() == "YES") + ("EP",) * is_planar
    is_spoiled = str(dataset.get("Spoiling") or "NONE").upper() != "NONE"
    agents = [str(one.get("CodeMeaning") or "?") for one in dataset.get("ContrastBolusAgentSequence") or ()]
    agent = any(map(_is_agent, agents)) if agents else None
    return replace(
        facts,
        sequence=facts.sequence or sequence,
        variant=facts.variant or ("SP",) * is_spoiled,
        echo_planar=facts.echo_planar or is_planar,
        agent=agent if facts.agent is None else facts.agent,
    )


@dataclass(frozen=True)
class _Frame:
    """What one frame of an enhanced image says of itself."""

    position: tuple[float, ...]
    direction: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    thickness_mm: float | None
    echo_time: float | None
    repetition_time: float | None
    inversion_time: float | None
    b_value: float | None
    component: str
    contrast: str
    stack: str
    agent: bool | None  # whether it had been given by then

    @classmethod
    def of(cls, group: Any, dataset: Any) -> "_Frame":
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
        sources = [item for part in (group, shared) if part is not None for item in _items(part)]

        def values(name: str) -> tuple[float, ...]:
            found = next((source.get(name) for source in sources if source.get(name) not in (None, "")), ())
            several = found if isinstance(found, Iterable) and not isinstance(found, str) else (found,)
            return tuple(float(value) for value in several)

        def text(name: str) -> str:
            return str(next((source.get(name) for source in sources if source.get(name)), ""))

        def number(name: str) -> float | None:
            return next(iter(values(name)), None)

        component = text("ComplexImageComponent").lower()
        return cls(
            position=values("ImagePositionPatient"),
            direction=values("ImageOrientationPatient"),
            pixel_mm=values("PixelSpacing"),
            thickness_mm=number("SliceThickness"),
            echo_time=number("EffectiveEchoTime"),
            repetition_time=number("RepetitionTime"),
            inversion_time=next(iter(values("InversionTimes")), None) or None,
            b_value=number("DiffusionBValue"),
            component=component if component in COMPONENTS else "",
            contrast=text("AcquisitionContrast"),
            stack=text("StackID"),
            agent={"YES": True, "NO": False}.get(text("ContrastBolusAgentAdministered").upper()),
        )


def _items(group: Any) -> Iterator[Any]:
    """The first items of a functional group's sequences."""
    for element in group:
        if element.VR == "SQ" and element.value:
            yield element.value[0]


def _referred(dataset: Any, key: bytes) -> set[str]:
    """Keyed ids of the series that a SEG object was drawn on."""
    found = {str(item.get("SeriesInstanceUID") or "") for item in dataset.get("ReferencedSeriesSequence") or ()}
    return {keyed(key, "series", uid) for uid in found if uid}


# Facts as text, for an index that is kept


def to_json(facts: Facts) -> str:
    """The facts as JSON."""
    return json.dumps(asdict(facts))


def from_json(text: str) -> Facts:
    """The facts that `to_json` wrote."""
    values = json.loads(text)
    for name in ("said", "protocol_said"):
        said = values[name]
        values[name] = Recognition(**{**said, "words": tuple(said["words"])})
    values["parts"] = [tuple(part) for part in values["parts"]]
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Facts(**fields)
