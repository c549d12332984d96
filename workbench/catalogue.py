"""Which studies there are, read from their source without importing them."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .errors import unknown
from .places import datasets
from .study import FIELDS, OPTIONAL_FIELDS, Study

FOLDER = Path(__file__).parent / "studies"


@dataclass(frozen=True)
class Entry:
    """What a study's source says of itself: title, the four docstring fields, and the slugs its claims stand for."""

    name: str
    title: str
    slugs: tuple[str, ...]
    question: str
    phenomenon: str
    try_: str
    cites: str
    differs: str = ""


@cache
def entries() -> tuple[Entry, ...]:
    """Every study of the package, by name; imports none of them."""
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_"))


def find(name: str) -> Study:
    """The study of this name; InputError with the nearest names if there is none."""
    names = [entry.name for entry in entries()]
    if name not in names:
        raise unknown("study", name, names)
    return importlib.import_module(f"{__package__}.studies.{name}").study


def listed() -> list[dict[str, Any]]:
    """One row a study: name, title, question, slugs, and whether its record is shipped; imports no study."""
    shipped = {path.stem for path in datasets().glob("*.nc")}
    return [dict(name=e.name, title=e.title, question=e.question, slugs=list(e.slugs), record=e.name in shipped) for e in entries()]


def table() -> Any:
    """The rows of `listed` as a pandas DataFrame by name; a notebook shows its texts in full."""
    import pandas as pd

    class Table(pd.DataFrame):
        def _repr_html_(self) -> str:
            with pd.option_context("display.max_colwidth", None):
                return super()._repr_html_()

    rows = [row | {"slugs": ", ".join(row["slugs"])} for row in listed()]
    return Table(rows, columns=["title", "question", "slugs", "record"], index=pd.Index([row["name"] for row in rows], name="name"))


def docstring_fields(doc: str) -> dict[str, str]:
    """The fields of a study's docstring (four, and Differs if it has that), whitespace folded; absent ones are missing from the result."""
    parts = re.split(rf"^({'|'.join((*FIELDS, *OPTIONAL_FIELDS))})\.\s", doc, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _read(path: Path) -> Entry:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    fields = docstring_fields(ast.get_docstring(tree) or "")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    titles = [text for call in calls if call.func.id == "Study" for text in _literals(call, "title", 1)]
    slugs = dict.fromkeys(text for call in calls if call.func.id == "Claim" for text in _literals(call, "slug", 0))
    texts = [fields.get(name, "") for name in (*FIELDS, *OPTIONAL_FIELDS)]
    return Entry(path.stem, titles[0] if titles else path.stem, tuple(filter(None, slugs)), *texts)


def _literals(call: ast.Call, keyword: str, position: int) -> Iterator[str]:
    found = [k.value for k in call.keywords if k.arg == keyword] + call.args[position : position + 1]
    for node in found:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
