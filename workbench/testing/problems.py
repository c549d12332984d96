"""Problems as sentences: what a check yields, and what an exception in a check means."""

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import InputError

_IN_PLACE = "It changes in place a tensor that all runs share; make a new one"
_MEANINGS = {  # what torch says under vmap, and what it means here
    "data-dependent control flow": "It branches in Python on a value that differs between runs; use torch.where, or make the knob "
    'static (acts="switch" or "shape")',
    ".item()": "It takes a Python number out of a value that differs between runs; keep it a tensor",
    "random operation": "It draws from torch's generator; use workbench.noise with the run's key",
    "inplace arithmetic": _IN_PLACE,
    "doesn't match the broadcast shape": _IN_PLACE,
}


def collected(checks: Iterable[Callable[..., Iterable[str]]], *subject: Any) -> list[str]:
    """What the checks find; an exception in one of them is a problem too."""
    found: list[str] = []
    for check in checks:
        try:
            found += check(*subject)
        except Exception as error:  # whatever a study's code raises is what the battery is there to report
            found.append(explained(error))
    return list(dict.fromkeys(found))


def explained(error: Exception) -> str:
    """An exception as one sentence, with the remedy where the cause is known."""
    if isinstance(error, InputError):
        return str(error)
    text = str(error)
    meaning = next((meaning for sign, meaning in _MEANINGS.items() if sign in text), "")
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{meaning} ({_place(error)})." if meaning else f"{type(error).__name__} in {_place(error)}: {first}"


def _place(error: Exception) -> str:
    """Where the user's own code raised: the innermost frame that is neither this package's engine nor a library."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if not module.startswith(("torch", "numpy", "xarray", "workbench.engine", "workbench.testing", "contextlib")):
            place = f"{module}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place or "the engine"
