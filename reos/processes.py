"""Child processes that never outlive the process that started them (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signum: signal.Signals) -> Callable[[], None]:
    """What `preexec_fn` runs so that the kernel sends the child `signum` when this process ends, however it ends.

    The kernel watches the thread that forked, not the process, so only the main thread may start such a child.
    Raises RuntimeError on any other thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a child that dies with its parent must be started from the main thread")
    parent = os.getpid()

    def arm() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # It ended before the kernel was told.
            os._exit(1)

    return arm


def stop_with_parent() -> None:
    """Have the kernel send this process SIGTERM when the one that started it ends, however it ends."""
    parent = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
