"""What the allocator does with memory that training gives back several times in every step."""

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST_KEPT = 32 << 20  # bytes of one block, the most that glibc takes; larger ones go back at once
MOST_KEPT = 512 << 20  # bytes at the end of the heap


@cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees; whether its C library can.

    glibc gives blocks of half a megabyte back to the system as soon as they are free, and the next tensor
    of that size is made of pages that the system has to clear again: of a step of 256 x 2 networks that was
    a sixth.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none
        return False
    return all([mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT), mallopt(M_TRIM_THRESHOLD, MOST_KEPT)])


def give_back_freed_memory() -> bool:
    """Return what is free to the system, as a process does that goes on with other things."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
