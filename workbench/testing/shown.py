"""Views and gauges: valid charts of real data."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..gauge import Gauge, default_gauges
from ..schema import Variable
from ..view import View
from .case import Case


def views(case: Case) -> Iterator[str]:
    """The views of a study, on its smoke record."""
    for view in case.study.views:
        yield from shown(view, case.smoke)


def gauges(case: Case) -> Iterator[str]:
    """The gauges of a study, or those of its default probes where it declares none, on a few steps of an experiment."""
    if not _has_altair():
        return
    from ..views.gauges import Shown

    live = case.experiment
    declared = case.study.gauges or default_gauges([live.variables[p.name] for p in case.study.probes])
    for gauge in declared:
        if gauge.variable in live.variables:  # that it lacks a variable is found elsewhere
            yield from drawn(gauge, live.variables[gauge.variable], Shown(list(live.tracks.values()), live.track))


def drawn(gauge: Gauge, variable: Variable, seen: Any) -> Iterator[str]:
    """The chart of a gauge is valid Vega-Lite, and its tables have rows, and the columns that the chart draws, all equally long."""
    from ..views import gauges as made

    charts, tables = [made.chart(gauge, variable)], dict(made.tables(gauge, variable, seen))
    if gauge.kind == "curve":
        charts.append(made.difference_chart(gauge, variable))
        tables |= made.difference_tables(gauge, variable, seen)
    drawn_fields = [place for chart in charts for place in _fields(chart.to_dict())]
    for data, field in dict.fromkeys(drawn_fields):
        if field not in tables.get(data, {}):
            yield f"Gauge {gauge.name!r} draws {field!r} of the data {data!r}, which its tables lack."
    for data, table in tables.items():
        if len({len(column) for column in table.values()}) > 1:
            yield f"The columns of the table {data!r} of gauge {gauge.name!r} are not equally long."
    if not any(len(column) for data in MAIN for column in tables.get(data, {}).values()):
        yield f"Gauge {gauge.name!r} is empty after a few steps of a small run; check what its probe gives."


def _fields(spec: Mapping[str, Any], data: str = "") -> Iterator[tuple[str, str]]:
    """The data and the field of each channel of a chart on named data."""
    data = spec.get("data", {}).get("name", data)
    for channel in spec.get("encoding", {}).values():
        if "field" in channel:
            yield data, channel["field"]
    for layer in spec.get("layer", ()):
        yield from _fields(layer, data)


def shown(view: View, record: Any) -> Iterator[str]:
    """The chart is valid Vega-Lite with rows to draw, and the record stays as it was. Nothing is said where Altair is missing."""
    if not _has_altair():
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


def _has_altair() -> bool:
    try:
        import altair  # noqa: F401
    except ImportError:
        return False
    return True


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


MAIN = ("lines", "cells", "pictures", "bars")
SHOWN = (views, gauges)
