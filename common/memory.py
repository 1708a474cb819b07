"""Freed memory is reused in the next step: on a CPU, page faults cost more than the arithmetic on the pages.

Floor: ground; imports only from the ground. Used by: data, train.
"""

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # of mallopt(3)
_done = False


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep large freed blocks instead of giving them back to the system.

    Each training step allocates and frees the same activations; once returned to the system, their pages are faulted in
    and zeroed again (a third to a half of a step's time on small machines). The setting is process-wide, costs at most
    the process's own peak memory, and is made once.

    Returns:
        Whether the allocator took it; False where the C library is not glibc.
    """
    global _done
    if _done or not sys.platform.startswith("linux"):
        return _done
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 64 << 20))
    _done = all(mallopt(name, value) for name, value in settings)
    return _done
