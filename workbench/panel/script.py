"""The Python that makes the runs of an experiment again: wb.run for each beginning, wb.fork for each change and branch."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from ..history import Track
from ..knobs import Spec
from ..schema import Change

BEGINNING = -1


def script(study: str, tracks: Iterable[Track], known: Mapping[str, Spec], layouts: Mapping[int, str], probes: Sequence[str] = ()) -> str:
    """Lines of Python, parents before their branches; a branch that has not trained yet is only named.

    One seed alone comes out the same to the last bit; several do up to rounding after the first fork, which trains each seed by itself.
    """
    lines, tracks = ["import workbench as wb", ""], list(tracks)
    latest: dict[tuple[int, int], str] = {}
    trained = [track for track in tracks if track.step > track.start]
    roots = [above for track in trained for above in track.ancestors if above.parent is None]
    for track in sorted({track.number: track for track in (*roots, *trained)}.values(), key=lambda track: track.number):
        lines += _of_track(study, track, known, {"mode": layouts[track.number], **({"probes": list(probes)} if probes else {})}, latest)
    lines += [
        f"# {track.name} left {track.parent.name} at step {track.start} and has not trained since" for track in tracks if _is_fresh(track)
    ]
    return "\n".join(lines) + "\n"


def _is_fresh(track: Track) -> bool:
    return track.parent is not None and track.step == track.start


def _of_track(
    study: str, track: Track, known: Mapping[str, Spec], measured: Mapping[str, Any], latest: dict[tuple[int, int], str]
) -> list[str]:
    name, lines = _identifier(track.name), []
    own = [c for c in track.changes if c.step >= track.start]
    if track.parent is None:
        knobs = {k: v for k, v in track.first.items() if k in known and (v != known[k].default or known[k].follows)}
        seeds = list(track.seeds) if len(track.seeds) > 1 else track.seeds[0]
        given = {**knobs, "seed": seeds, "steps": max(1, track.step), **measured}
        lines.append(f"{name} = wb.run({study!r}, {_arguments(given)})")
        latest[track.number, BEGINNING] = name
        source = name
    else:
        source = _before(track.parent, track.start, latest)
        if not any(c.step == track.start for c in own):
            own = [Change(0, track.start, "", None, None), *own]
    for step, changes in groupby(sorted(own, key=lambda c: c.step), key=lambda c: c.step):
        if step >= track.step:
            break
        knobs = {c.knob: c.new for c in changes if c.knob}
        here = name if track.parent is not None and step == track.start else f"{name}_from_{step}"
        lines.append(f"{here} = {_fork(source, len(track.seeds), step, track.step, knobs)}")
        latest[track.number, step] = source = here
    return lines


def _before(track: Track, step: int, latest: Mapping[tuple[int, int], str]) -> str:
    """The name of the record that holds what came to `step` of a branch, before anything was changed there."""
    found = {at: name for (number, at), name in latest.items() if number == track.number and at < step}
    return found[max(found)] if found or track.parent is None else _before(track.parent, step, latest)


def _fork(source: str, seeds: int, step: int, steps: int, knobs: Mapping[str, Any]) -> str:
    of = _arguments({"step": step, "steps": steps, **knobs})
    if seeds == 1:
        return f"wb.fork({source}, run=0, {of})[1]"
    if "_from_" in source or not source.startswith("run_"):
        return f"[wb.fork(one, run=0, {of})[1] for one in {source}]"
    return f"[wb.fork({source}, run=run, {of})[1] for run in range({seeds})]"


def _arguments(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _identifier(name: str) -> str:
    return name.replace(" ", "_")
