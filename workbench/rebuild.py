"""Shipped records: the full run of a study, rounded, judged as rounded, and listed in MANIFEST.json."""

import json
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import xarray as xr

from .catalogue import find
from .engine import run
from .errors import InputError
from .opening import open_record
from .places import datasets
from .record import save, with_claims, with_events
from .study import Study

MAX_BYTES = 300_000


def rebuild(name: str, folder: Path | None = None, *, progress: bool | None = None) -> Path:
    """Compute the record that ships with a study, put it into `folder` and its verdicts into the manifest there; returns its path.

    What stood there is replaced at the very end, both files together. InputError if the record takes more than 300 kB or a claim
    cannot be computed from it; the measured record then stays as `NAME.rebuilding`.
    """
    folder = folder or datasets()
    study = find(name)
    read_manifest(folder)
    measured = folder / f"{name}.rebuilding"
    record = finished(study, budget="full", out=measured, overwrite=True, progress=progress)
    try:
        _publish(record, study, folder)
    except InputError as error:
        raise InputError(f"{error} What was measured stays in {str(measured)!r}.") from error
    measured.unlink()
    return folder / f"{name}.nc"


def finished(study: Study, **options: Any) -> xr.DataTree:
    """The record of a run that reached its end; one that was interrupted goes on as the interrupt it was."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Interrupted")
        record = run(study, **options)
    if "interrupted" in record.attrs:
        raise KeyboardInterrupt
    return record


def judged(record: xr.DataTree, study: Study) -> xr.DataTree:
    """The record with the study's events and verdicts computed from its curves as they are; InputError if a claim has no effect."""
    record = with_claims(with_events(record, study.events), study.claims)
    for verdict in json.loads(record.attrs["claims"]):
        if not verdict["n"]:
            raise InputError(
                f"Claim {verdict['statement']!r} of study {study.name!r} finds no runs to judge; add them to the budget's design."
            )
    return record


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of records; empty if there is none, InputError if it cannot be read."""
    path = folder / "MANIFEST.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"records": {}}
        return {"records": dict(manifest["records"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a manifest; restore it or move it away.") from error


def _publish(record: xr.DataTree, study: Study, folder: Path) -> None:
    new = folder / f".{study.name}.new"
    listing = folder / ".MANIFEST.new"
    try:
        save(record, new, rounded=True, overwrite=True)
        save(judged(open_record(new), study), new, overwrite=True)
        entry = _entry(new, study)
        manifest = read_manifest(folder)
        manifest["records"] = dict(sorted((manifest["records"] | {study.name: entry}).items()))
        listing.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(folder / entry["file"])
        listing.replace(folder / "MANIFEST.json")
    finally:
        new.unlink(missing_ok=True)
        listing.unlink(missing_ok=True)


def _entry(path: Path, study: Study) -> dict[str, Any]:
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        raise InputError(
            f"The record of {study.name!r} takes {len(content) / 1e3:.0f} kB, and a shipped one at most {MAX_BYTES / 1e3:.0f} kB; "
            "give its full budget fewer runs or steps, or its probes a slower clock."
        )
    claims = json.loads(open_record(path).attrs["claims"])
    return {"file": f"{study.name}.nc", "sha256": sha256(content).hexdigest(), "bytes": len(content), "claims": claims}
