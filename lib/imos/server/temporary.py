"""Temporary files of the server: named after the process, so that the next one removes what a killed one left.

They show patients: labels on their way into an archive, uploaded images and what was painted on them. A server that
ends by itself or by Ctrl-C removes its own; `kill`, `kill -9` and a power cut leave no time to.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from imos.server.processes import Process

_NAME = re.compile(r"imos-(\d+)-(\d+)-")


def temporary_prefix() -> str:
    """What the names of this process's temporary files and folders begin with."""
    return _prefix(os.getpid())


@cache
def _prefix(pid: int) -> str:  # by the number: a forked process is another one
    return f"imos-{pid}-{Process.this().began:.0f}-"


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes when the context, or the server, ends."""
    return tempfile.TemporaryDirectory(prefix=temporary_prefix())


def remove_left() -> None:
    """Remove what servers of this user have left that are no longer running."""
    for path in Path(tempfile.gettempdir()).glob("imos-*"):
        name = _NAME.match(path.name)
        if name is None or Process(int(name[1]), float(name[2])).is_running or _owner(path) != os.getuid():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # another server was faster
        return None
