"""Noticing that a source file has changed, for `make dev`."""

from __future__ import annotations

from pathlib import Path

from reos.migrate import MIGRATIONS

SUFFIXES = {".py", ".sql", ".html", ".txt", ".js", ".css"}
PACKAGE = Path(__file__).parent


class Watcher:
    """Remembers what the sources looked like when it was last asked."""

    def __init__(self, *directories: Path):
        self._directories = directories or (PACKAGE, MIGRATIONS)
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether a file was changed, added or removed since the last time."""
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def _look(self) -> dict[Path, int]:
        found = {}
        for directory in self._directories:
            for path in directory.rglob("*"):
                if path.suffix in SUFFIXES:
                    try:
                        found[path] = path.stat().st_mtime_ns
                    except FileNotFoundError:  # An editor replaced it at this moment.
                        found[path] = 0
        return found
