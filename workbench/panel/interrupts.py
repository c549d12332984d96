"""What a notebook does to a panel: an interrupt of its kernel pauses, running its cell again closes."""

import sys
import threading
import weakref
from types import FrameType
from typing import Any, Protocol


class Live(Protocol):
    """What can be paused and closed."""

    def pause(self) -> None: ...

    def close(self) -> None: ...


_open: "weakref.WeakSet[Any]" = weakref.WeakSet()
_of_cell: "dict[str, tuple[Any, weakref.WeakSet[Any]]]" = {}


def opened(panel: Live) -> None:
    """Pause this panel when the kernel is interrupted; close those that the same cell opened when it ran before."""
    shell = _shell()
    if shell is None:
        return
    cell, now = _cell(shell), getattr(shell, "execution_count", None)
    count, panels = _of_cell.get(cell, (now, weakref.WeakSet()))
    if now is None or count != now:
        for earlier in panels:
            earlier.close()
        panels = weakref.WeakSet()
    panels.add(panel)
    _of_cell[cell] = now, panels
    if not _open:
        _watch(shell)
    _open.add(panel)


def pause_all() -> None:
    """Pause every open panel."""
    for panel in list(_open):
        panel.pause()


def _shell() -> Any:
    found = sys.modules.get("IPython")
    return found.get_ipython() if found else None


def _cell(shell: Any) -> str:
    """What tells a cell from the others: its number in the document where the front says it, else its text."""
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    said = (parent or {}).get("metadata", {}).get("cellId")
    history = shell.user_ns.get("In") or [""]
    return str(said or history[-1])


def _watch(shell: Any) -> None:
    """Be told of interrupts: of a cell that runs, and, as ipykernel ignores them then, of a kernel that is idle."""
    shell.events.register("post_run_cell", _after)
    kernel = getattr(shell, "kernel", None)
    if threading.current_thread() is not threading.main_thread():
        return
    if kernel is not None and hasattr(kernel, "saved_sigint_handler"):
        kernel.saved_sigint_handler = _interrupted


def _after(result: Any) -> None:
    if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
        pause_all()


def _interrupted(number: int, frame: FrameType | None) -> None:
    pause_all()
