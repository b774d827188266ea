"""Pieces of HTML for notebooks: small, coloured by the page that they stand in, every value escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_TEXT_LENGTH = 40


def facts(title: str, items: Mapping[str, Any]) -> str:
    """A title and `name: value` pairs behind it."""
    pairs = "".join(
        f"<span style='margin-right:1.2em'>{escape(k)} <b>{escape(str(v))}</b></span>" for k, v in items.items()
    )
    return f"<div><b>{escape(title)}</b></div><div style='opacity:.85'>{pairs}</div>"


def table(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table with a head; numbers stand at the right, texts are given as they are."""
    heads = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def details(summary: str, content: str) -> str:
    """HTML that opens with a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def short(value: Any) -> str:
    """A value of a table as a few words: bytes by their number, long lists and texts cut.

    >>> short(b"12345"), short([1.0, 2.5]), short(None)
    ('5 bytes', '1, 2.5', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        value = [f"{key}: {short(one)}" for key, one in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(short(one) for one in value)
    text = str(value)
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"


def _cell(value: Any) -> str:
    side = "right" if isinstance(value, int | float) and not isinstance(value, bool) else "left"
    text = value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else short(value)
    return f"<td style='text-align:{side}'>{escape(text)}</td>"
