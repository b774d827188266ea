"""What a process that trains does with memory that it has freed: it keeps it."""

import ctypes

# Of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what this process frees, in one arena, for what it asks for next.

    Every step of a training asks for the same hundreds of tensors of many megabytes again. Left to itself, malloc gives
    each back to the system and gets it again, and the system fills every page with zeros first: a tenth of a step and
    more. To be called before threads of this process have arenas of their own; the process stays as large as it was at
    its largest. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _LARGEST)
    mallopt(_ARENA_MAX, 1)
