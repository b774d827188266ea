"""Errors that a user can mend: each names the thing, the value and the next step."""

from collections.abc import Sequence
from enum import Enum


class SegpipeError(Exception):
    """A failure with its remedy, shown as the one line `problem: remedy`.

    >>> str(SegpipeError("Slice table file:///w/slices lacks column `split`", "run ingest again"))
    'Slice table file:///w/slices lacks column `split`: run ingest again'
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.problem, self.remedy)


class UsageError(SegpipeError, ValueError):
    """A wrong option or value; jobs end with exit code 2."""

    exit_code = 2


class NotFound(SegpipeError, FileNotFoundError):
    """A source, table or model that is not where it was said to be."""


class MissingPackage(SegpipeError, ModuleNotFoundError):
    """A Python package that this needs and that is not installed; the remedy names the extra that brings it."""


class TableError(SegpipeError, ValueError):
    """A table whose schema or content breaks the contract of the warehouse."""


class ModelError(SegpipeError, ValueError):
    """A model directory that is not valid, is damaged, or does not fit the scans."""


class WarehouseBusy(SegpipeError, RuntimeError):
    """Another job holds the lock of a cohort."""


class StorageError(SegpipeError, OSError):
    """A file system that refuses: safe mode, quota, permission, not reachable."""


class Reason(str, Enum):
    """Why an input went to quarantine: the `reason` column of that table."""

    __str__ = str.__str__  # as of enum.StrEnum, which Python 3.10 lacks

    EMPTY_FILE = "empty_file"
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    CORRUPT = "corrupt"
    TOO_LARGE = "too_large"
    BAD_GEOMETRY = "bad_geometry"
    GRID_MISMATCH = "grid_mismatch"
    MASK_MISMATCH = "mask_mismatch"
    UNKNOWN_LABELS = "unknown_labels"
    UNCLEAR_ROLE = "unclear_role"
    NOT_FINITE = "not_finite"
    NO_BRAIN = "no_brain"
    UNPREPARABLE = "unpreparable"
    BAD_PREPARATION = "bad_preparation"
    DUPLICATE = "duplicate"
    UNSAFE_PATH = "unsafe_path"
    UNREADABLE = "unreadable"
    NOT_FETCHED = "not_fetched"
    CRASHED = "crashed"
    MISSING_MODALITY = "missing_modality"
    DOES_NOT_FIT_MODEL = "does_not_fit_model"


class BadInput(SegpipeError, ValueError):
    """One input that cannot be used; it becomes one row of the quarantine table."""

    def __init__(self, reason: Reason, problem: str, remedy: str):
        super().__init__(problem, remedy)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.reason, self.problem, self.remedy)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that looks most like `word`, for a remedy; None if none does.

    >>> nearest("splt", ["subject", "split"])
    'split'
    """
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), None)
