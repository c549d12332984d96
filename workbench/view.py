"""Views: pure functions from a record to an Altair chart, declaring the variables they draw."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class View:
    """One chart of a record."""

    name: str
    fn: Callable[[Any], Any]
    needs: tuple[str, ...]
    doc: str

    def __call__(self, record: Any) -> Any:
        return self.fn(record)


def view(*needs: str) -> Callable[[Callable[[Any], Any]], View]:
    """Declare a view that needs these variables; the first line of its docstring says what the chart shows."""

    def declare(fn: Callable[[Any], Any]) -> View:
        doc = (fn.__doc__ or "").strip().splitlines()
        if not doc:
            raise TypeError(f"View {fn.__name__!r} needs a docstring; its first line is the chart's caption.")
        return View(fn.__name__, fn, needs, doc[0])

    return declare
