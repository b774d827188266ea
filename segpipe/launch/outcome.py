"""What a job in cluster deploy mode says, brought back to the terminal that it was submitted from.

The driver runs on a node, where its words end in a log. So the node keeps a copy of them and leaves it, with the exit
code, in a file on HDFS that SEGPIPE_OUTCOME names; `submit` on the submitting machine prints it and takes it away.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from segpipe.interrupts import was_terminated
from segpipe.launch.refusals import explanation

VARIABLE = "SEGPIPE_OUTCOME"
_MOST_CHARACTERS = 1 << 16


@contextmanager
def sent_home() -> Iterator[Callable[[int], None]]:
    """Around a job: the function to call with its exit code. Does nothing where nobody waits for the outcome."""
    url = os.environ.get(VARIABLE)
    if url is None:
        yield lambda code: None
        return
    out, err = io.StringIO(), io.StringIO()

    def send(code: int) -> None:
        said = {"code": code, "out": out.getvalue()[-_MOST_CHARACTERS:], "err": err.getvalue()[-_MOST_CHARACTERS:]}
        from segpipe.storage import url_to_fs

        with suppress(OSError):  # then the launcher says where the log is
            fs, path = url_to_fs(url)
            fs.pipe_file(path, json.dumps(said).encode())

    with redirect_stdout(_Both(sys.stdout, out)), redirect_stderr(_Both(sys.stderr, err)):
        yield send


class _Both(io.TextIOBase):
    """A text stream that keeps a copy of what is written to it."""

    def __init__(self, stream: TextIO, copy: TextIO):
        self._stream, self._copy = stream, copy

    def write(self, text: str) -> int:
        self._copy.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def submit(command: Sequence[str], url: str) -> int:
    """Run spark-submit until the job has ended in the cluster, say what the job said, and give its exit code."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # Spark hands it on
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except KeyboardInterrupt as interrupt:
        print("segpipe: the job goes on in the cluster: `yarn application -list` names it", file=sys.stderr)
        return 143 if was_terminated(interrupt) else 130
    if "--verbose" in command:
        print(done.stdout, end="", file=sys.stderr, flush=True)
    said = _fetch(url)
    if said is None or (done.returncode == 0) != (said["code"] == 0):
        if done.returncode != 0:
            print(f"segpipe: {explanation(done.stdout)}", file=sys.stderr)
        return done.returncode
    print(said["out"], end="", flush=True)
    print(said["err"], end="", file=sys.stderr, flush=True)
    return int(said["code"])


def _fetch(url: str) -> dict[str, Any] | None:
    from segpipe.storage import url_to_fs

    try:
        fs, path = url_to_fs(url)
        said = dict(json.loads(fs.cat_file(path)))
        fs.rm(path)
    except OSError:
        return None
    return said
