"""What of the project the long tests have proved: `python tools/proof.py write` after them, `check` before a gate.

`tests/proof.txt` holds a hash of the code that starts jobs, stores files, trains and runs the test cluster, and of the
lock files. `check` ends with 1 if that code is no longer what `make test-all` last passed on; then `.ci/run` runs it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROOF = ROOT / "tests" / "proof.txt"
PROVED = (
    "segpipe/launch",
    "segpipe/storage",
    "segpipe/trainers",
    "tools/hadoop",
    "spark-submit.sh",
    "requirements*.lock",
)


def main(argv: list[str]) -> int:
    """Write the hash, or compare with the one on record."""
    found = digest()
    if argv == ["write"]:
        PROOF.write_text(found + "\n")
        return 0
    if argv == ["check"]:
        return int(not PROOF.is_file() or PROOF.read_text().strip() != found)
    print("usage: python tools/proof.py write|check", file=sys.stderr)
    return 2


def digest() -> str:
    """SHA-256 over names and contents of what the long tests prove."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", *PROVED], capture_output=True, text=True, check=True)
    total = hashlib.sha256()
    for path in sorted(listed.stdout.split("\n")[:-1]):
        total.update(path.encode() + b"\0" + hashlib.sha256((ROOT / path).read_bytes()).digest())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
