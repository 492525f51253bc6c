"""Starting: what is wrong with it is said in one line, before the server takes requests."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from imos.errors import UserError

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""What the system says of a place where nothing can be written."""


@contextmanager
def ends_in_a_sentence() -> Iterator[None]:
    """End the process with one line and exit code 2 where whoever starts it has to change something.

    At once: what raises on the way through MONAI Label's and uvicorn's start comes out as a page of calls.
    """
    try:
        yield
    except UserError as error:
        _end(str(error))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        _end(f"The server cannot write {error.filename}: {error.strerror}. It keeps labels in the folder of studies.")


def _end(sentence: str) -> None:
    logging.shutdown()
    sys.stdout.flush()
    print(f"imos: {sentence}", file=sys.stderr, flush=True)
    os._exit(2)
