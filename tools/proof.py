"""What the long tests have proved: `python tools/proof.py write RESULTS` after them, `check` before a gate.

`tests/proof.txt` holds a hash of the code that the long tests guard: what starts jobs, stores files, prepares scans,
changes tables, trains, segments and runs the test cluster, jobs, notebooks, pages with steps, and the lock files.
`check` ends with 1 if that code is no longer what `make test-all` last passed on; then `.ci/run` runs it.
RESULTS is the JUnit XML of that run: where a test on the cluster was skipped, for Kerberos was not installed, or only a
part of the tests ran, nothing is written, and `write` says why.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PROOF = ROOT / "tests" / "proof.txt"
PROVED = (
    "segpipe/launch",
    "segpipe/storage",
    "segpipe/warehouse",
    "segpipe/prepare",
    "segpipe/pipelines",
    "segpipe/runtimes",
    "segpipe/trainers",
    "segpipe/analysis",
    "jobs",
    "notebooks",
    "docs/tutorial.md",
    "docs/how-to",
    "tools/hadoop",
    "spark-submit.sh",
    "pyproject.toml",
    "requirements*.lock",
)


def main(argv: list[str]) -> int:
    """Write the hash, or compare with the one on record."""
    if len(argv) == 2 and argv[0] == "write":
        if reason := missing(Path(argv[1])):
            print(f"tests/proof.txt stays as it is: {reason}", file=sys.stderr)
        else:
            PROOF.write_text(digest() + "\n")
        return 0
    if argv == ["check"]:
        return int(not PROOF.is_file() or PROOF.read_text().strip() != digest())
    print("usage: python tools/proof.py write RESULTS | check", file=sys.stderr)
    return 2


def missing(results: Path) -> str | None:
    """What a run of the long tests lacks of a proof; None if nothing."""
    cases = list(ElementTree.parse(results).getroot().iter("testcase"))
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            return f"{name} failed"
        if case.find("skipped") is not None and name.startswith("tests.hadoop."):
            return f"{name} was skipped"
    ran = {str(case.get("classname")) for case in cases}
    absent = sorted(module for module in _modules_of_long_tests() if module not in ran)
    return f"{absent[0]} did not run" if absent else None


def _modules_of_long_tests() -> set[str]:
    """The modules, such as `tests.hadoop.test_faults`, that mark a test as long."""
    found = {path for path in (ROOT / "tests").rglob("test_*.py") if "mark.long" in path.read_text("utf-8")}
    return {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found}


def digest() -> str:
    """SHA-256 over names and contents of what the long tests prove."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", *PROVED], capture_output=True, text=True, check=True)
    total = hashlib.sha256()
    for path in sorted(listed.stdout.split("\n")[:-1]):
        total.update(path.encode() + b"\0" + hashlib.sha256((ROOT / path).read_bytes()).digest())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
