"""The conformance battery: what every study, task, learner, probe and view must do, whoever wrote it.

Each function returns the problems it found, as sentences; an empty list means that the thing conforms. A thing that cannot meet a
rule says so itself, with the reason: a learner by `lanes = False` and `reason = "..."`, a task by `lanes = False` and a `reason`
(its draws cannot be mapped) or by `constant = "..."` (why its batches do not depend on the seed).
"""

from ..catalogue import find
from ..knobs import Knobs
from ..probe import Probe
from ..study import Phase, Study
from ..view import View
from .case import Case
from .declared import DECLARED
from .drawn import DRAWN, batches
from .measured import MEASURED, measured
from .problems import collected
from .recorded import RECORDED
from .shown import SHOWN, shown
from .trained import TRAINED, case_of

CHECKS = (*DECLARED, batches, *TRAINED, *MEASURED, *RECORDED, *SHOWN)

__all__ = [
    "CHECKS",
    "DECLARED",
    "RECORDED",
    "SHOWN",
    "Case",
    "check",
    "check_learner",
    "check_probe",
    "check_study",
    "check_task",
    "check_view",
    "collected",
]


def check_study(study: Study) -> list[str]:
    """Everything that can be found out about a study in some twenty seconds on two cores."""
    return collected(CHECKS, Case(study))


def check(study: Study | str) -> list[str]:
    """`check_study`, of a study or of the one that has this name."""
    return check_study(find(study) if isinstance(study, str) else study)


def check_task(task: object, knobs: Knobs) -> list[str]:
    """Batches are a function of key and declared knobs only, differ between seeds, and can be drawn for many runs at once."""
    return collected(DRAWN, task, knobs)


def check_learner(learner: object, task: object, knobs: Knobs, phases: tuple[Phase, ...] = (Phase("train"),)) -> list[str]:
    """A step changes nothing, is the same among others as alone, does not spread NaN, and traces as one graph."""
    return collected(TRAINED, case_of(learner, task, knobs, phases))


def check_probe(probe: Probe, study: Study) -> list[str]:
    """Values have the declared dimensions, some are finite, and many runs at once give what one by one gives."""
    return collected([lambda case: measured(case, (probe,))], Case(study))


def check_view(view: View, record: object) -> list[str]:
    """The chart is valid Vega-Lite, shows data, and the record stays as it was."""
    return collected([shown], view, record)
