"""What the numbers of a mask mean: as the data set's name or the user says, else all masks of the archive together.

Labels of one mask alone tell nothing: a mask without label 4 is read as those beside it are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from segpipe.core.regions import CONVENTIONS, LabelConvention
from segpipe.errors import UsageError
from segpipe.readers.archive import ScanSource
from segpipe.readers.names import MASK
from segpipe.toml import tomllib

OTHER = "other"
"""The convention of masks whose numbers nobody has explained; they are quarantined."""

_S = "[-_ .]?"  # between the words of a data set's name
_NAMED: tuple[tuple[str, str], ...] = (
    # data sets, by the names of their scans and folders; the first that fits decides
    (rf"brats{_S}2023{_S}peds?|brats{_S}peds?{_S}2023", "brats2023"),  # children as adults, in the first year
    (rf"brats{_S}(?:20\d\d{_S})?ped", "brats-ped"),
    (rf"brats{_S}(?:20\d\d{_S})?men{_S}rt", "binary"),
    (rf"brats{_S}2025{_S}mets?(?![a-z])|brats{_S}mets?{_S}2025", "brats2024"),  # with the cavity, since that year
    (rf"brats{_S}(?:20\d\d{_S})?(?:men|mets?|ssa|africa|goat)(?![a-z])", "brats2023"),
    (
        rf"brats-?gli-\d+-[1-9]\d\d(?!\d)|brats{_S}gli{_S}post|brats{_S}(?:gli)?{_S}202[45]|mu-glioma-post|ucsf[-_]?alptdg",
        "brats2024",
    ),
    (rf"brats{_S}gli(?![a-z])|brats{_S}2023", "brats2023"),
    (r"(?<![a-z])brats", "brats"),
    (r"upenn-?gbm|ucsf-?pdgm", "brats"),
    (r"ms-?lesseg|atlas[-_ ]?r?2|isles|wmh|mssegs?", "binary"),
)
_RULES = tuple((re.compile(pattern, re.IGNORECASE), convention) for pattern, convention in _NAMED)
_NEWER_WORDS = re.compile(r"(?<![a-z0-9])(?:t1n|t2f)(?![a-z0-9])", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"\d{5,}")
_INFERRED = ("binary", "brats")  # conventions that labels alone can tell
_NEWER = ("binary", "brats2023", "brats2024")  # where modalities are called as in BraTS since 2023
_BY_FOLDER = ("brats2023", "brats2024", "brats-ped")  # that the name of an archive's folder is believed for
_WHITE = LabelConvention("binary", {255: "lesion"}, {"lesion": (255,)})  # as programs draw that write pictures
_FITTING = 0.95  # share of the masks that a convention must fit


def convention_by_name(scan: ScanSource, archive: str = "") -> str | None:
    """The convention of the data set that a scan's subject, files or archive's folder are named for; None if none is.

    An archive's folder is believed where it names a year or a kind of BraTS: people call much `brats` or `wmh`.

    >>> from segpipe.readers.archive import ScanSource
    >>> convention_by_name(ScanSource("BraTS-GLI-02060", "100", (), "brats"))
    'brats2024'
    >>> convention_by_name(ScanSource("P7", "1", (), "plain")) is None
    True
    """
    first = scan.files[0].path if scan.files else ""
    found = _named_for(_LONG_NUMBER.sub("00000", f"{scan.subject}-{scan.session}\n{first}"), archive)
    newer = found == "brats" and _has_newer_words("\n".join([file.path for file in scan.files]))
    return "brats2023" if newer else found  # `t1n` and `t2f` are words of BraTS since 2023


def _has_newer_words(text: str) -> bool:
    lower = text.lower()
    return ("t1n" in lower or "t2f" in lower) and _NEWER_WORDS.search(lower) is not None


@lru_cache(maxsize=1 << 12)
def _named_for(text: str, archive: str) -> str | None:
    """The convention that a scan's name or its first file's tell; no rule asks which number of five digits it is."""
    texts = text.split("\n", 1)
    rules = (
        (rule, convention, [*texts, archive] if convention in _BY_FOLDER else texts) for rule, convention in _RULES
    )
    return next((convention for rule, convention, names in rules if any(map(rule.search, names))), None)


def with_shared_convention(
    scans: Sequence[ScanSource], labels: Mapping[tuple[str, str], Iterable[int]]
) -> list[ScanSource]:
    """The scans, those of which `labels` are known by subject and session with the convention that they share.

    Where none fits nearly all of them, they get `OTHER`.
    """
    known = {identity: frozenset(found) for identity, found in labels.items()}
    names = _NEWER if any(_NEWER_WORDS.search(path) for scan in scans[:100] for path in scan.paths) else _INFERRED
    shared = _shared(list(known.values()), names)
    return [
        replace(scan, label_convention=shared) if scan.label_convention is None and scan.identity in known else scan
        for scan in scans
    ]


def _shared(found: list[frozenset[int]], names: Sequence[str]) -> str:
    """The first convention that explains nearly all masks, those aside which no convention at all explains."""
    if any(found) and all(labels <= {*_WHITE.labels} for labels in found):
        return _WHITE.text
    every = [set(convention.labels) for convention in CONVENTIONS.values()]
    votes = [labels for labels in found if labels and any(labels <= known for known in every)]
    for name in names:
        fitting = sum(labels <= set(CONVENTIONS[name].labels) for labels in votes)
        if fitting >= _FITTING * len(votes):
            return name
    return OTHER


def with_convention(scans: Iterable[ScanSource], name: str) -> list[ScanSource]:
    """The scans, those with a mask in a convention that the user has named."""
    return [
        replace(scan, label_convention=name) if any(file.role == MASK for file in scan.files) else scan
        for scan in scans
    ]


def from_user(text: str, content: bytes | None) -> str:
    """The name of the convention that a user means: one of `CONVENTIONS`, or the description in a TOML file.

    The file has `name`, a table `labels` (number = meaning) and a table `regions` (name = list of numbers), outermost
    first. Raises UsageError for what is neither.
    """
    if content is None:
        if text in CONVENTIONS:
            return text
        known = ", ".join(CONVENTIONS)
        raise UsageError(f"Label convention {text!r} is unknown", f"choose one of {known}, or name a TOML file")
    remedy = 'write name, a table [labels] such as 1 = "oedema", and a table [regions] such as whole = [1, 2]'
    try:
        given = tomllib.loads(content.decode())
        labels = {int(number): word_of(name) for number, name in given["labels"].items()}
        regions = {word_of(name): tuple(map(int, members)) for name, members in given["regions"].items()}
        convention = LabelConvention(word_of(given.get("name", "own")), labels, regions)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"Label convention {text} cannot be used ({error})", remedy) from error
    return convention.text


def word_of(text: object) -> str:
    """A name without the signs that a convention's line is written with."""
    return re.sub(r"[|=,+\x00-\x1f]", " ", str(text)).strip() or "label"
