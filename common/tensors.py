"""Tensors in files, without pickle.

Floor: ground; imports only from the ground. Used by: deploy, train.
"""

import errno
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors to a safetensors file; those that share memory or are strided are copied first.

    Raises:
        OSError: if it cannot be written.
    """
    try:
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, path)
    except SafetensorError as error:
        # safetensors reports system errors as text only: recover the number, so that callers can tell a full disk.
        number = next((n for n in (errno.ENOSPC, errno.EROFS, errno.EFBIG) if os.strerror(n) in str(error)), errno.EIO)
        raise OSError(number, os.strerror(number) if number != errno.EIO else str(error), str(path)) from error
