"""Caches files that several conversions of one export need; the first one that needs a file makes it."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


class ArtifactCache:
    """A folder of files named by a digest of their inputs; safe between processes, even if one is killed.

    ``is_shared`` says whether other conversions use the folder, too.
    """

    def __init__(self, root: Path, *, is_shared: bool = False) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.is_shared = is_shared

    def provide(self, key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return the file or folder of a key, and whether this call made it.

        ``build(path)`` writes it under a temporary name first; other processes wait meanwhile.
        """
        path, partial = self.root / key, self.root / f"partial-{key}"
        with (self.root / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, False
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink(missing_ok=True)
            build(partial)
            partial.rename(path)
        return path, True
