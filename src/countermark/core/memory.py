"""Memory that stays with the process: what a training frees it asks for again at the next step.

glibc hands large blocks back to the system at once, and every page comes back zeroed through a fault of its own
(benchmarks/kept_memory.py measures what that costs).
"""

from __future__ import annotations

import ctypes
import platform

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_AHEAD_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """From now on freed memory waits for the next request, where the C library is glibc; elsewhere nothing changes."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_ARENA_MAX, 1)  # or a thread could not take what another one freed (training/parts.py)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, _AHEAD_BYTES)
