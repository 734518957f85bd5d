"""Files that several conversions of one export need, made once by whoever comes first."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


class SharedFolder:
    """A folder of files that are named by their content; safe between processes, and against a kill at any moment."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root

    def provide(self, key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return the file or folder of a key, and whether it was made now.

        ``build(path)`` writes it under another name first; while it does, the others wait.
        """
        path, partial = self._root / key, self._root / f"partial-{key}"
        with (self._root / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, False
            _remove(partial)
            build(partial)
            partial.rename(path)
        return path, True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
