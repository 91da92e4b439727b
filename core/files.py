"""Files: written whole or not at all, and the kinds that are never read. Without torch, which takes a second to import:

comparing, reporting, pushing and pulling do without it.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

COMMIT = re.compile(r"^[0-9a-f]{40}$")
UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5", "*.msgpack", "*.onnx")


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write a file whole or not at all: a temporary sibling, then a rename; a reader never sees a part."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _umask() -> int:
    """The process's file mode mask (mkstemp makes files private; what we write is as shareable as any other file)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
