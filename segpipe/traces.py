"""An error from a Python worker, the JVM or here, back to the one line that tells what went wrong."""

from __future__ import annotations

import re

_BARRIER = "finished unsuccessfully."


def root_cause(error: BaseException) -> str:
    """The line `Type: message` of what went wrong first: in a Python worker, in the JVM, or here."""
    text = words_of(error)
    if raised := worker_error(text):
        return raised
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    if causes:
        return causes[-1]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".removesuffix(": ")


def first_line(error: BaseException) -> str:
    """The error in a worker where there is one, else the first line of what is said; the type where that is nothing.

    >>> first_line(RuntimeError("Could not recover: barrier task finished unsuccessfully.\\nExecutorLostFailure"))
    'ExecutorLostFailure'
    """
    text = words_of(error)
    text = text.rpartition(_BARRIER)[2].strip() or text  # Spark says behind this what became of the task
    lines = (line.strip() for line in text.splitlines() if line.strip())
    return worker_error(text) or next(lines, type(error).__name__)


def worker_error(text: str) -> str | None:
    """`Type: message` of the exception in the last Python traceback in `text`, None if there is none.

    >>> worker_error("Traceback (most recent call last):\\n  File 'b'\\nValueError: bad cell\\n\\tat java")
    'ValueError: bad cell'
    """
    _, found, trace = text.rpartition("Traceback (most recent call last):\n")
    raised = re.search(r"^[A-Za-z_][\w.]*(?:: .*)?$", trace, re.MULTILINE) if found else None
    return raised[0] if raised else None


def words_of(error: BaseException) -> str:
    """All that an error says, with the stack of Java where it comes from there.

    Where the JVM that has the words is gone, what is known of it here.
    """
    try:
        return str(getattr(error, "java_exception", None) or error)
    except Exception:
        return str(getattr(error, "errmsg", type(error).__name__))
