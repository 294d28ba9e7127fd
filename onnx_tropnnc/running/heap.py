"""Give freed memory back at once, so that a process takes no more than what is alive.

glibc maps arrays above a threshold by themselves, and their memory goes when they are freed. But it raises the
threshold to the size of what is freed, up to 32 MB, and puts later arrays into the heap. A walk over the samples frees
activations of one size and makes others of another size, which do not fit into the holes.
"""

import ctypes
import os
import sys

__all__ = ["map_large_arrays"]

# mallopt's number for the threshold, from malloc.h, and the variable that glibc reads it from when a process starts.
_M_MMAP_THRESHOLD, _VARIABLE = -3, "MALLOC_MMAP_THRESHOLD_"

# Mapping an array costs a call of the system and a cleared page for every 4 KB. EfficientNet-lite0 takes 2.2 GB without
# this, and 11 seconds of the system's; with 8 MB it takes 1.84 GB and 18 s, with 1 MB as much memory and 34 s.
LARGE = 2**23


def map_large_arrays() -> bool:
    """Fix the threshold for this process and those that it starts, if its C library has one; return whether it has.

    Meant for programs, and not for a library: it changes how everything in the process gets its memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or mallopt(_M_MMAP_THRESHOLD, LARGE) != 1:
        return False
    # the points of a sweep are compressed in processes of their own
    os.environ[_VARIABLE] = str(LARGE)
    return True
