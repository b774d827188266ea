"""TensorFlow's rewritten functions, without the files that they come by.

AutoGraph writes each function that it rewrites into the temporary folder, imports it from there, and deletes it when
the process ends as it should. Spark's workers do not: they would leave ten files behind each training.
"""

import contextlib
import functools
import importlib.util
import linecache
import os
from typing import Any


def leave_no_files() -> None:
    """Have AutoGraph delete what it wrote as soon as it is imported; the text stays known, for error messages.

    TensorFlow has no option for it; where it has no such function any more, nothing is done.
    """
    from tensorflow.python.autograph.pyct import loader

    load = getattr(loader, "load_source", None)
    if load is None or hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def load_source(source: str, delete_on_exit: bool) -> Any:
        module, path = load(source, delete_on_exit=False)
        linecache.cache[path] = (len(source), None, source.splitlines(True), path)
        bytecode = importlib.util.cache_from_source(path)
        for left in (path, bytecode):
            with contextlib.suppress(OSError):
                os.unlink(left)
        with contextlib.suppress(OSError):  # others may keep theirs in it
            os.rmdir(os.path.dirname(bytecode))
        return module, path

    loader.load_source = load_source
