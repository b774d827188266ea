"""The forms that visits have at the end or the beginning of a patient's name, as tables.

What fits a form may be a visit. Whether it is one is told by all names together, in `ends` and `before`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from segpipe.readers.names import has_digit

YEAR = re.compile(r"19[89]\d|20[0-4]\d")
SIX = re.compile(r"\d{6}|\d\d-\d\d-\d\d|\d\d\.\d\d\.\d\d")  # digits that may be a date without a century
_GAP = r"[_\-. ]"  # between the words of a name
_NTH = r"\d\d?(?:st|nd|rd|th)"
_SHORT_YEAR, _MONTH, _DAY = r"(?:[0-4]\d|[89]\d)", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
SHORT_DATE = re.compile(
    rf"{_SHORT_YEAR}(?P<s>[\-.]?){_MONTH}(?P=s){_DAY}|{_DAY}(?P<t>[\-.]?){_MONTH}(?P=t){_SHORT_YEAR}"
    rf"|(?:{YEAR.pattern}){_MONTH}"
)


class Form(NamedTuple):
    """A form of names: its parts as regular expressions, and what each part of an example is."""

    kind: str
    parts: tuple[str, str, str]
    example: tuple[str, str, str]

    def compiled(self, *names: str) -> re.Pattern[str]:
        """The pattern of a whole name, with a group for each part."""
        groups = (f"(?P<{name}>{part})" for name, part in zip(names, self.parts, strict=True))
        return re.compile("".join(groups), re.IGNORECASE)


# A name, a gap, and what may be a visit. Of eight the first that fits is taken, the rest have their own rules.
ENDS = (
    Form("fields", (r"(?:.*?\D)??\d{5,}", r"[_\-]", r"\d{1,6}(?:[_\-]\d{1,6})+"), ("1000012", "_", "20252_2_0")),
    Form("written day", (r".+", r"[_ ]", r"\d\d-\d\d-\d\d|\d\d\.\d\d\.\d\d"), ("P01", "_", "31-12-19")),
    Form(
        "short",
        (r".*\d.*?", rf"{_GAP}+", rf"[A-Z]{{0,3}}\d{{1,4}}(?-i:[a-z])?|[A-Z]+|{_NTH}"),
        ("A7", "_", "1"),
    ),
    Form("day", (r".+", _GAP, SIX.pattern), ("P01", "_", "311219")),
    Form("examination", (r"(?:.*\D)?\d{5,}", _GAP, r"[A-Z]{0,4}\d{5,}"), ("0034567", "_", "RA1990011")),
    Form("letter", (r".*\d{2,}", "", "[A-F]"), ("100101", "", "A")),
    Form("year", (r"\D+?", _GAP, YEAR.pattern), ("Meier_Anna", "_", "2019")),
    Form("lettered", (r"\D*[^\W\d_]{2}", _GAP, r"[vmwdy]\d{1,4}"), ("Meier", "_", "V1")),
    Form("counted", (r".*\d", _GAP, r"\d{1,2}[_\-. ]\d{1,6}"), ("X-017", "_", "01_0412")),
    Form("dated", (r".*\d", rf"{_GAP}(?:(?:MRI?|MRT|IRM|RM){_GAP})?", r"[A-Z]{2,4}\d{2,}"), ("P001", "_MR_", "ACC123")),
    Form("accession", (r"\D*[^\W\d_]", _GAP, r"[A-Z]{1,4}\d{4,}"), ("Smith_J", "_", "E12001")),
    Form("written on", (r".*\d", "", r"[tvmw]\d{1,3}"), ("c01s04", "", "t01")),
)
# What may be a visit, a gap, and a name.
BEGINNINGS = (
    Form(
        "short",
        (rf"[A-Z]|[A-Z]{{0,2}}\d{{1,2}}|{_NTH}|(?:aug|run|rep|copy)\d{{1,2}}", _GAP, r".+"),
        ("A", "_", "GBM001"),
    ),
    Form("day", (SIX.pattern, _GAP, r".+"), ("190304", "_", "P01")),
    Form("year", (YEAR.pattern, _GAP, r".*[^\W\d_].*|\d{5,}"), ("2021", "_", "Pat3")),
    Form("word", (r"[^\W\d_]+", _GAP, r".+"), ("Zmap", "_", "NICU_010")),  # of processing, or a relative
)
END = {form.kind: form.compiled("name", "gap", "visit") for form in ENDS}
BEGINNING = {form.kind: form.compiled("visit", "gap", "name") for form in BEGINNINGS}
MAY_END = re.compile("|".join("".join(f"(?:{part})" for part in form.parts) for form in ENDS), re.IGNORECASE)
_SHORT = rf"(?P<visit>[A-Z]|\d{{1,2}}|{YEAR.pattern})"
CROSSED = tuple(  # what may be a visit or a number of somebody at a place
    re.compile(form, re.IGNORECASE) for form in (rf"(?P<name>.+){_GAP}{_SHORT}", rf"{_SHORT}{_GAP}(?P<name>.+)")
)
_ANY = MAY_END, *BEGINNING.values()


def may_hold_a_visit(name: str) -> bool:
    """Whether a name begins or ends as names do that say a visit too: most names of an archive need this look alone.

    >>> [may_hold_a_visit(name) for name in ("BraTS2021_00012", "GBM001", "GBM001_pre", "V1_Anna")]
    [False, False, True, True]
    """
    return any(form.fullmatch(name) for form in _ANY)


def shape(text: str) -> str:
    """A text with its numbers alike: each digit, or each number if one has four digits or more.

    >>> shape("P01-3"), shape("UPENN-00012_3")
    ('P99-9', 'UPENN-9_9')
    """
    return re.sub(r"\d", "9", text) if not re.search(r"\d{4,}", text) else re.sub(r"\d+", "9", text)


def kind(visit: str) -> str:
    """What must be alike in visits of one archive: `day`, `letter` for words, or the form of words with numbers.

    >>> kind("311219"), kind("pre"), kind("fu12")
    ('day', 'letter', 'fu9')
    """
    if SIX.fullmatch(visit):
        return "day"
    return re.sub(r"\d+", "9", visit) if has_digit(visit) else "letter"


def are_days(words: Iterable[str]) -> bool:
    """Whether all numbers of six digits are dates without a century, and there are some."""
    numbers = [word for word in words if SIX.fullmatch(word)]
    return bool(numbers) and all(map(SHORT_DATE.fullmatch, numbers))


def digits(text: str) -> int:
    """How many digits there are in a text."""
    return sum(letter.isdecimal() for letter in text)


def end_digits(text: str) -> int:
    """How many digits a text ends in."""
    return len(text) - len(text.rstrip("0123456789"))


def last_digits(text: str) -> int:
    """How many digits the last number of a text has."""
    found = re.findall(r"\d+", text)
    return len(found[-1]) if found else 0
