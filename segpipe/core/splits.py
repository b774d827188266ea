"""Which subjects train, validate and test."""

import hashlib
import hmac
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from segpipe.errors import UsageError

SPLITS = ("train", "validation", "test")
_PATTERN = re.compile(r"hmac-sha256 train=(\S+) validation=(\S+) salt=(.*)", re.DOTALL)


@dataclass(frozen=True)
class SplitRule:
    """A split by a salted hash of the subject: it depends on nothing else, so new subjects never move old ones.

    `train` and `validation` are shares of the subjects, the rest is the test split. A subject's place on the line from
    0 to 1 is the first 53 bits of HMAC-SHA-256 (RFC 2104), the salt being the key.
    Raises UsageError if a share is negative or both together are more than 1.
    """

    salt: str
    train: float
    validation: float

    def __post_init__(self) -> None:
        shares = (self.train, self.validation)
        if not all(math.isfinite(share) and share >= 0 for share in shares) or sum(shares) > 1 + 1e-9:
            raise UsageError(
                f"Split shares train {self.train} and validation {self.validation} are not shares of one whole",
                "give two numbers from 0 to 1 whose sum is at most 1",
            )

    def of(self, subject: str) -> str:
        """The split of a subject: train, validation or test.

        >>> SplitRule("segpipe", 0.7, 0.15).of("BraTS2021_00006")
        'train'
        """
        place = self.place(subject)
        if place < self.train:
            return "train"
        return "validation" if place < self.train + self.validation else "test"

    def place(self, subject: str) -> float:
        """Where a subject lies on the line from 0 to below 1."""
        # File names that are no UTF-8 reach Python with surrogates, which the default refuses.
        salt, name = (text.encode(errors="surrogatepass") for text in (self.salt, subject))
        digest = hmac.digest(salt, name, hashlib.sha256)
        return (int.from_bytes(digest[:8], "big") >> 11) / 2**53

    def sizes(self, subjects: Iterable[str]) -> dict[str, int]:
        """How many of the subjects each split gets; every split is there."""
        sizes = dict.fromkeys(SPLITS, 0)
        for subject in set(subjects):
            sizes[self.of(subject)] += 1
        return sizes

    def __str__(self) -> str:
        return f"hmac-sha256 train={self.train!r} validation={self.validation!r} salt={self.salt}"

    @classmethod
    def parse(cls, text: str) -> "SplitRule":
        """The rule that `str` wrote; raises ValueError for any other text."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"not a split rule: {text!r}")
        return cls(match[3], float(match[1]), float(match[2]))


def filled_rule(subjects: set[str], salt: str, train: float, validation: float) -> SplitRule:
    """The first split rule of the salts `salt`, `salt-1`, … whose splits are as large as the fractions say.

    A hash leaves splits of a small cohort larger or smaller than that, or even empty. Where no salt fits, the first.
    """
    wanted = {"train": train, "validation": validation, "test": 1 - train - validation}
    salts = [salt, *(f"{salt}-{number}" for number in range(1, 1000))]
    rules = [SplitRule(salt, train, validation) for salt in salts]

    def fits(rule: SplitRule) -> bool:
        sizes = rule.sizes(subjects)
        return all(sizes[split] >= max(1, math.floor(share * len(subjects))) for split, share in wanted.items())

    return next((rule for rule in rules if fits(rule)), rules[0])
