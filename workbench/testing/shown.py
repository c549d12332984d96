"""Views: valid charts of real data."""

from collections.abc import Iterator
from typing import Any

from ..view import View
from .case import Case


def views(case: Case) -> Iterator[str]:
    """The views of a study, on its smoke record."""
    for view in case.study.views:
        yield from shown(view, case.smoke)


def shown(view: View, record: Any) -> Iterator[str]:
    """The chart is valid Vega-Lite with rows to draw, and the record stays as it was. Nothing is said where Altair is missing."""
    try:
        import altair  # noqa: F401
    except ImportError:
        return
    if missing := [name for name in view.needs if name not in record.wb]:
        yield f"View {view.name!r} needs {missing[0]!r}, which the record lacks; measure it, or leave it out of what the view needs."
        return
    before = record.copy(deep=True)
    spec = view(record).to_dict()
    if not any(_rows(spec)):
        yield f"View {view.name!r} draws an empty chart."
    if not before.identical(record):
        yield f"View {view.name!r} changes the record; work on a copy."


def _rows(spec: Any) -> Iterator[int]:
    """How many rows each data set inside a chart has."""
    if isinstance(spec, dict):
        yield from (len(rows) for rows in spec.get("datasets", {}).values())
        yield from (len(data["values"]) for data in [spec.get("data")] if isinstance(data, dict) and isinstance(data.get("values"), list))
        for name, part in spec.items():
            if name not in ("datasets", "data"):
                yield from _rows(part)
    elif isinstance(spec, list):
        for part in spec:
            yield from _rows(part)


SHOWN = (views,)
