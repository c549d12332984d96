"""The page: what the template fills in, and the charts as inert images that a script makes interactive."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..catalogue import docstring_fields, entries
from ..errors import InputError
from ..study import FIELDS, OPTIONAL_FIELDS, Study
from ..view import View
from ..views import GENERAL, claims, verdicts_of
from ..views.extras import alt, extra
from . import tables

# Loaded here and not where they are used: who asks for a report learns what is missing before the runs, not after.
jinja2, markupsafe, vl_convert, _ = map(extra, ("jinja2", "markupsafe", "vl_convert", "altair"))

TEMPLATE = "report.html.jinja"
TEXTS = (*FIELDS, *OPTIONAL_FIELDS)
DRAW = """
for (const chart of document.querySelectorAll("[data-spec]")) {
  const spec = JSON.parse(document.getElementById(chart.dataset.spec).textContent);
  const place = document.createElement("div");
  const actions = {export: true, source: false, compiled: false, editor: false};
  vegaEmbed(place, spec, {mode: "vega-lite", renderer: "svg", ast: true, actions})
    .then(() => chart.replaceChildren(place))
    .catch(error => console.error(error));
}
"""


def page(record: Any, study: Study | None, views: Sequence[View] | None) -> str:
    """The whole report as HTML. Every text from the record is escaped by the template; charts carry it as JSON and as images."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    verdicts = verdicts_of(record)
    chosen = views if views is not None else (study.views if study else ()) or GENERAL
    script = bundle()
    return environment.get_template(TEMPLATE).render(
        texts=texts(record, study),
        prose=prose,
        summary=tables.summary(record, verdicts),
        claims=[tables.claim(verdict) for verdict in verdicts],
        forest=figure(claims, record, "forest") if verdicts else None,
        figures=[figure(view, record, f"chart-{i}") for i, view in enumerate(drawable(chosen, record))],
        settings=tables.settings(record),
        timeline=tables.timeline(record),
        provenance=tables.provenance(record),
        again=tables.reproduction(record),
        script=script,
        policy=policy(script),
    )


def drawable(views: Sequence[View], record: Any) -> list[View]:
    """The views whose variables are all in the record."""
    return [view for view in views if all(name in record.wb for name in view.needs)]


def texts(record: Any, study: Study | None) -> dict[str, str]:
    """Title and the fields of a study: its own, else the catalogue's, else what the record's attributes say."""
    if study is not None:
        return {"title": study.title} | {name: docstring_fields(study.doc).get(name, "") for name in TEXTS}
    for entry in entries():
        if entry.name == record.attrs.get("study"):
            said = (entry.title, entry.question, entry.phenomenon, entry.try_, entry.cites, entry.differs)
            return dict(zip(("title", *TEXTS), said, strict=True))
    said = {name: str(record.attrs.get(name.lower(), "")) for name in ("Title", *TEXTS)}
    return {"title": said.pop("Title") or str(record.attrs.get("study", "Record"))} | said


def prose(text: str) -> Any:
    """Escaped text in which what stands between two backquotes is code."""
    parts = re.split(r"`([^`]*)`", text)
    code = markupsafe.Markup("<code>{}</code>")
    return markupsafe.Markup("").join(code.format(part) if i % 2 else part for i, part in enumerate(parts))


def figure(view: View, record: Any, name: str) -> dict[str, str]:
    """A chart's caption, its specification as JSON, its picture as a data URL and its text; only the reason if it cannot be drawn."""
    try:
        with alt.theme.enable("workbench"):
            spec = view(record).to_dict()
    except InputError as error:
        return {"name": name, "caption": view.doc, "reason": str(error)}
    spec.setdefault("config", {})["background"] = "transparent"
    svg = _short(vl_convert.vegalite_to_svg(spec, vl_version=_vegalite()))
    picture = "data:image/svg+xml," + quote(svg, safe=" ,:;=/()!$*+-.?@_~")
    text = str(spec.get("description") or view.doc)
    return {"name": name, "caption": view.doc, "text": text, "spec": inert(spec), "picture": picture, "reason": ""}


def inert(value: Mapping[str, Any]) -> str:
    """JSON that can stand in a script element: without any character that HTML gives a meaning."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return re.sub(r"[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _short(svg: str) -> str:
    """The picture without the labels of single marks, which an image does not show, and with one decimal in its coordinates."""
    svg = re.sub(r' (?:aria-[a-z]+|role)="[^"]*"', "", svg)
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)


def _vegalite() -> str:
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


@cache
def bundle() -> str:
    """Vega and the script that draws, as one text that can stand in a script element."""
    text = vl_convert.javascript_bundle(DRAW, vl_version=_vegalite())
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def policy(script: str) -> str:
    """A content security policy under which this script alone runs and nothing is requested."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = ["default-src 'none'", f"script-src 'sha256-{digest}'", "style-src 'unsafe-inline'", "img-src data:", "base-uri 'none'"]
    return "; ".join([*parts, "form-action 'none'"])
