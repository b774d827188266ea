"""Why a training failed, as a small file in its model directory."""

import contextlib
import json
from collections.abc import Iterator

from segpipe.errors import SegpipeError, StorageError
from segpipe.storage.filesystem import filesystem, join, remove, replace

_FAILURE = "failure.json"


@contextlib.contextmanager
def telling(model_url: str) -> Iterator[None]:
    """Leave word for the driver where a worker gives up for a reason of ours: Spark only carries a stack trace.

    Such a reason lies in data or settings, where another try ends the same; storage that fails may be back by then.
    """
    try:
        yield
    except StorageError:
        raise
    except SegpipeError as error:
        fs, folder = filesystem(model_url)
        fs.makedirs(folder, exist_ok=True)
        replace(fs, join(folder, _FAILURE), json.dumps([error.problem, error.remedy]).encode())
        raise


def take_failure(model_url: str) -> SegpipeError | None:
    """What a worker left word of, and forget it."""
    fs, folder = filesystem(model_url)
    try:
        problem, remedy = json.loads(fs.cat_file(join(folder, _FAILURE)))
    except FileNotFoundError:
        return None
    remove(fs, join(folder, _FAILURE))
    return SegpipeError(problem, remedy)
