"""Reports: a record as one HTML file that reads without a network and without the code that made it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..catalogue import entries, find
from ..opening import open_record
from ..record import writable
from ..study import Study
from ..view import View
from .html import page

__all__ = ["report"]


def report(
    record: Any,
    path: str | Path,
    *,
    study: Study | None = None,
    views: Sequence[View] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of a record (or of a study's shipped record, or of a file) to `path`: claims, charts, events, provenance.

    The charts are `views`, else those of `study` or of the study of this package that the record names, else the general ones; of these,
    all whose variables are in the record. A record needs no study to be read: of one that is not here it has the texts. Raises InputError
    if the path exists (unless `overwrite`) or cannot be written, or if a package of the `report` extra is missing.
    """
    path = writable(path, overwrite=overwrite)
    record = open_record(record) if isinstance(record, (str, Path)) else record
    text = page(record, study or _named(record), views)
    partial = path.with_name(f".{path.name}.writing")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _named(record: Any) -> Study | None:
    name = record.attrs.get("study")
    return find(name) if name in {entry.name for entry in entries()} else None
