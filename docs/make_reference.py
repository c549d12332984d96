"""Write reference.md: the knobs, probes and presets of every study, as they declare them. Usage: python docs/make_reference.py"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from workbench.catalogue import entries, find
from workbench.knobs import Spec, specs
from workbench.probe import Probe
from workbench.study import Study

PAGE = Path(__file__).with_name("reference.md")
HEAD = "# Reference\n\nWritten by `docs/make_reference.py` from the declarations of the studies."


def page() -> str:
    """The whole page."""
    return "\n\n".join([HEAD, *(part for entry in entries() for part in parts(find(entry.name)))]) + "\n"


def parts(study: Study) -> Iterator[str]:
    """What there is to say of one study."""
    yield f"## {study.name}: {study.title}"
    yield "Presets: " + "; ".join(f"*{preset.name}* ({_values(preset.knobs)})" for preset in study.presets) + "."
    yield "### Probes\n\n*Default* ones are always measured, the others with `probes=[...]` or `--probe`."
    probes = [(p, "default") for p in study.probes] + [(p, "optional") for p in study.optional_probes]
    yield _table("probe | meaning | dimensions | units | every | cost | measured", (_of_probe(p, when) for p, when in probes))
    yield "### Knobs\n\n*live*: may change while training. *start*: acts when a run begins. *switch*: a fork may change it. *shape*: fixed."
    yield _table("knob | meaning | default | valid | units | acts", map(_of_knob, specs(study.knobs).values()))


def _of_probe(p: Probe, when: str) -> list[str]:
    return [f"`{p.name}`", p.doc.rstrip("."), ", ".join(p.dims), p.units, str(p.every), p.cost, when]


def _of_knob(spec: Spec) -> list[str]:
    numeric = spec.type in (int, float) and not spec.choices
    valid = str(spec.valid) if numeric else ", ".join(map(str, spec.choices)) or ("true, false" if spec.type is bool else "text")
    default = "the run's steps" if spec.follows else _text(spec)
    return [f"`{spec.name}`", spec.hint, default, valid, spec.units, spec.acts]


def _text(spec: Spec) -> str:
    if spec.type in (int, float) and not spec.choices:
        return f"{spec.default:g}"
    return str(spec.default).lower() if spec.type is bool else str(spec.default)


def _values(knobs: dict) -> str:
    return ", ".join(f"{name} {str(value).lower()}" for name, value in knobs.items())


def _table(header: str, rows: Iterable[list[str]]) -> str:
    columns = header.split(" | ")
    return "\n".join(map(_line, (columns, ["---"] * len(columns), *rows)))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
