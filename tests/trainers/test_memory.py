"""Memory that a training frees is there for its next step."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys, threading
import numpy as np
from segpipe.trainers.memory import keep_freed_memory

def steps():
    for _ in range(20):
        arrays = [np.ones(4 << 20, np.float32) for _ in range(4)]

def in_a_thread():  # TensorFlow computes in threads, which malloc gives other arenas than the main one
    thread = threading.Thread(target=steps)
    thread.start()
    thread.join()

if sys.argv[1] == "kept":
    keep_freed_memory()
in_a_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
in_a_thread()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt belongs to glibc")
def test_freed_memory_is_used_again() -> None:
    left_alone, kept = _page_faults("left alone"), _page_faults("kept")

    assert left_alone > 10_000  # or malloc would not need to be told
    assert kept < left_alone / 50
