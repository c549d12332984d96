"""What a study says of itself: text, names, knobs, budgets, presets, claims, gauges. Nothing is trained."""

import inspect
import math
from collections import Counter
from collections.abc import Iterator

from .. import atlas, catalogue
from ..dims import DIMS
from ..engine import fork, run
from ..errors import InputError
from ..knobs import Spec, specs
from ..probe import CHEAP
from ..study import BUDGETS, FIELDS
from .case import Case

RESERVED = {p.name for fn in (run, fork) for p in inspect.signature(fn).parameters.values() if p.kind != p.VAR_KEYWORD} | {
    *DIMS,
    "seed",
    "phase",
}
MOST_LETTERS = 80
EVENTS = ("steps_done", "diverged_step")


def text(case: Case) -> Iterator[str]:
    """The module's docstring has the four fields, and the title and slugs are literals that the catalogue can read."""
    study = case.study
    found = catalogue.docstring_fields(inspect.cleandoc(study.doc))
    for name in FIELDS:
        if not found.get(name):
            yield f"The docstring of module {study.module!r} lacks the field {name!r}; write a line that begins with '{name}.'."
    if not study.name.isidentifier():
        yield f"The study's name {study.name!r} is not an identifier; rename its module."
    if not study.title.strip():
        yield "The study has no title."
    entry = next((e for e in catalogue.entries() if study.module == f"{catalogue.__package__}.studies.{e.name}"), None)
    if entry and (entry.title != study.title or {*entry.slugs} != {claim.slug for claim in study.claims} - {""}):
        yield "The catalogue reads another title or other slugs than the study has; write them as plain strings in Study and Claim."


def knobs(case: Case) -> Iterator[str]:
    """Knobs are documented, their sliders lie within what is valid, and their names are free."""
    for name, spec in specs(case.study.knobs).items():
        if name in RESERVED:
            yield f"Knob {name!r} has the name of an argument or of a dimension; rename it."
        if not spec.doc.strip() or not spec.units.strip():
            yield f"Knob {name!r} lacks a doc or units ('1' if it has none)."
        yield from _slider(spec)


def _slider(spec: Spec) -> Iterator[str]:
    if spec.type not in (int, float) or spec.choices:
        return
    if spec.low is None or spec.high is None or not spec.low < spec.high:
        yield f"Knob {spec.name!r} has no span for its slider; give it low and high."
    elif spec.low not in spec.valid or spec.high not in spec.valid or (spec.log and spec.low <= 0):
        yield f"The slider of knob {spec.name!r} reaches from {spec.low:g} to {spec.high:g}, beyond what is valid ({spec.valid})."


def budgets(case: Case) -> Iterator[str]:
    """Smoke, demo and full are there, and each names runs and probes that exist."""
    study = case.study
    for name in BUDGETS:
        if name not in study.budgets:
            yield f"There is no {name!r} budget; give one (at most {BUDGETS[name]} s on two cores)."
    for name, budget in study.budgets.items():
        try:
            budget.design.rows(study.knobs)
            study.probes_named(budget.probes, budget.clocks)
        except InputError as error:
            yield f"Budget {name!r}: {error}"
        if budget.steps < 1:
            yield f"Budget {name!r} has {budget.steps} steps; it must have at least 1."


def presets(case: Case) -> Iterator[str]:
    """Presets have names of their own and a line of text, and set knobs to valid values."""
    study = case.study
    yield from _repeated("preset", [preset.name for preset in study.presets])
    for preset in study.presets:
        if not preset.doc.strip():
            yield f"Preset {preset.name!r} has no doc; say what is seen."
        try:
            study.knobs().replace(**preset.knobs)
        except InputError as error:
            yield f"Preset {preset.name!r}: {error}"


def variables(case: Case) -> Iterator[str]:
    """Probes, events and knobs have names of their own, the default probes are cheap, and what is referred to exists."""
    study = case.study
    probes = (*study.probes, *study.optional_probes)
    names = [*EVENTS, *(p.name for p in probes), *(event.name for event in study.events)]
    yield from _repeated("variable", [*names, *specs(study.knobs), *DIMS])
    for p in study.probes:
        if p.cost not in CHEAP:
            yield f"The cost of default probe {p.name!r} is {p.cost!r}; make it an optional probe, or one of cost {' or '.join(CHEAP)}."
    for event in study.events:
        if not event.doc.strip() or not event.units.strip():
            yield f"Event {event.name!r} lacks a doc or units ('1' if it has none)."
    for view in study.views:
        for name in view.needs:
            if name not in names:
                yield f"There is no variable {name!r}, which view {view.name!r} needs; add its probe or event to the study."


def claims(case: Case) -> Iterator[str]:
    """Claims stand for systems of the atlas or for theory, and say what they compare, with which threshold and why."""
    known = {system.slug for system in atlas.systems()}
    for claim in case.study.claims:
        if claim.slug and claim.slug not in known:
            yield f"Claim {claim.statement!r} has slug {claim.slug!r}, which is not in the atlas (see `workbench atlas`)."
        if not all(part.strip() for part in (claim.statement, claim.threshold_source, claim.paired, claim.units)):
            yield f"Claim {claim.statement!r} lacks a statement, threshold_source, paired or units."
        if not math.isfinite(claim.threshold):
            yield f"Claim {claim.statement!r} has the threshold {claim.threshold}; give a finite number."


def gauges(case: Case) -> Iterator[str]:
    """Gauges have names of their own and short titles, and show variables and dimensions that are measured."""
    study = case.study
    known = {p.name: p for p in (*study.probes, *study.optional_probes)}
    yield from _repeated("gauge", [gauge.name for gauge in study.gauges])
    for gauge in study.gauges:
        if gauge.variable not in known:
            yield f"There is no variable {gauge.variable!r}, which gauge {gauge.name!r} shows; add its probe to the study."
            continue
        dims = known[gauge.variable].dims
        for dim in gauge.over:
            if dim not in dims:
                yield f"Gauge {gauge.name!r} reduces over {dim!r}, which {gauge.variable!r} lacks; it has {', '.join(dims) or 'none'}."
        if gauge.kind == "picture" and dims[-2:] != ("y", "x"):
            yield f"Gauge {gauge.name!r} is a picture of {gauge.variable!r}, whose last dimensions are not y and x."
        if gauge.kind == "map" and not dims:
            yield f"Gauge {gauge.name!r} is a map of {gauge.variable!r}, which has no dimension to make rows of; make it a curve."
        title = gauge.title or known[gauge.variable].doc
        if not title.strip() or "\n" in title or len(title) > MOST_LETTERS:
            yield f"The title of gauge {gauge.name!r} is {title!r}; give it one line of at most {MOST_LETTERS} letters."


def predictions(case: Case) -> Iterator[str]:
    """Questions offer at least two answers that differ, and say after how many steps they are settled."""
    for asked in case.study.predictions:
        if not asked.question.strip() or len(set(asked.answers)) < max(2, len(asked.answers)) or not all(a.strip() for a in asked.answers):
            yield f"Prediction {asked.question!r} lacks a question or two answers that differ."
        if asked.steps < 1:
            yield f"Prediction {asked.question!r} is settled after {asked.steps} steps; it must be at least 1."


def published(case: Case) -> Iterator[str]:
    """Published numbers belong to a variable of the study, and say what they are and where they stand."""
    known = {p.name for p in (*case.study.probes, *case.study.optional_probes)}
    for each in case.study.published:
        if each.variable not in known:
            yield f"There is no variable {each.variable!r}, for which {each.text!r} is published; add its probe to the study."
        if not each.text.strip() or not each.source.strip() or not math.isfinite(each.value):
            yield f"The number published for {each.variable!r} lacks a text or a source, or is not finite."
        if each.step is not None and each.step < 0:
            yield f"The number published for {each.variable!r} is of step {each.step}; it must be at least 0."
        try:
            case.study.knobs().replace(**each.knobs)
        except InputError as error:
            yield f"The number published for {each.variable!r} is of other knobs: {error}"


def phases(case: Case) -> Iterator[str]:
    """Phases have names of their own and a share of the run."""
    yield from _repeated("phase", [phase.name for phase in case.study.phases])
    if not case.study.phases or not all(phase.share > 0 for phase in case.study.phases):
        yield "Every phase needs a share above 0, and a study at least one phase."


def _repeated(kind: str, names: list[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"The name {name!r} stands for more than one {kind} (or knob or dimension); rename one."


DECLARED = (text, knobs, budgets, presets, variables, claims, gauges, predictions, published, phases)
