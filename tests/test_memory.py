import subprocess
import sys

FAULTS = """
import resource, sys
import numpy as np
from segpipe.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    for _ in range(20):
        blocks = [np.empty(2 << 20, np.uint8) for _ in range(8)]  # below the size for which numpy asks for huge pages
        for block in blocks:
            block[:: 1 << 12] = 1
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str) -> int:
    command = [sys.executable, "-c", FAULTS, what]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_memory_that_is_kept_comes_without_page_faults():
    assert faults("kept") < faults("given back") / 10
