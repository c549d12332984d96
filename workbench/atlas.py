"""The atlas: the published systems, and how far the studies of this package bear each of them out."""

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from . import catalogue, places
from .errors import InputError


@dataclass(frozen=True)
class System:
    """One published system: the small experiment that shows its mechanism, and what must be seen."""

    n: int
    family: str
    slug: str
    title: str
    mini: str
    knobs: str
    probes: str
    claim: str


@cache
def systems() -> tuple[System, ...]:
    """Every system, in the order of its number."""
    text = Path(__file__).with_name("atlas.json").read_text(encoding="utf-8")
    return tuple(System(**fields) for fields in json.loads(text))


def table(datasets: Path | None = None) -> list[dict[str, Any]]:
    """One row a system: n, slug, title, family, study (one or several names, or None), claims (the verdicts of its slug), status.

    Verdicts come from MANIFEST.json in `datasets` (the shipped ones by default); InputError if a record is not the one it lists.
    """
    studies: dict[str, list[str]] = {}
    for entry in catalogue.entries():
        for slug in entry.slugs:
            studies.setdefault(slug, []).append(entry.name)
    shipped = verdicts(datasets or places.datasets())
    rows = []
    for system in systems():
        own = studies.get(system.slug, [])
        claims = [verdict for study in own for verdict in shipped.get(study, []) if verdict["slug"] == system.slug]
        row = {"n": system.n, "slug": system.slug, "title": system.title, "family": system.family}
        rows.append(row | {"study": ", ".join(own) or None, "claims": claims, "status": status(claims)})
    return rows


def status(claims: list[dict[str, Any]]) -> str:
    """`fails` if any verdict does, `holds` if all do; `planned` if there is none yet, or one is undecided."""
    found = {verdict["status"] for verdict in claims}
    if "fails" in found:
        return "fails"
    return "holds" if found == {"holds"} else "planned"


def verdicts(datasets: Path) -> dict[str, list[dict[str, Any]]]:
    """The verdicts of each shipped study, each checked to be those of the record that lies beside MANIFEST.json."""
    manifest = datasets / "MANIFEST.json"
    if not manifest.exists():
        return {}
    try:
        records = json.loads(manifest.read_text(encoding="utf-8"))["records"]
        return {study: _checked(study, entry, datasets) for study, entry in records.items()}
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{manifest} cannot be read as a manifest; run `workbench rebuild` to write it anew.") from error


def _checked(study: str, entry: dict[str, Any], datasets: Path) -> list[dict[str, Any]]:
    record = datasets / Path(entry["file"]).name
    if not record.is_file() or sha256(record.read_bytes()).hexdigest() != entry["sha256"]:
        raise InputError(f"The record {record} does not match its manifest; run `workbench rebuild {study}`.")
    return list(entry["claims"])
