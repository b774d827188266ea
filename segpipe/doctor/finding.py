"""One row of what the doctor finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One row of the table: `state` is ok, note (something optional is missing) or fault; a remedy where not ok."""

    check: str
    state: str
    detail: str
    remedy: str = ""
