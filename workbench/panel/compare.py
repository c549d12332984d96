"""What a branch is set beside: its own curves as they were, and the nearest runs of the shipped record."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import opening
from ..history import Series, Track
from ..knobs import Spec
from ..progress import counted
from ..schema import Variable
from ..study import Study
from ..views.theme import word
from . import words
from .replay import nearest, settings_of, track_of, variables_of


def pinned(track: Track, until: int, known: Mapping[str, Spec]) -> Track:
    """A copy of what a branch has measured up to a step, its parent's part included, which stays as it is."""
    copy = replace(track, name=f"pinned: {words.of_branch(track, known)}", parent=None, start=0, own={}, changes=[])
    for name in track.variables:
        steps, values = track.series(name, until + 1)
        if steps.size:
            copy.own[name] = Series.of(steps.copy(), values.swapaxes(0, 1).copy())
    return copy


class Shipped:
    """The shipped record of a study, opened once, as tracks of these variables."""

    def __init__(self, study: Study, known: Mapping[str, Spec], variables: Mapping[str, Variable]) -> None:
        self.record, self.known = opening.open_record(study.name), known
        self.settings = settings_of(self.record, known)
        self.variables = {name: v for name, v in variables_of(self.record).items() if name in variables}
        self._tracks: dict[tuple[int, ...], Track] = {}

    def nearest(self, row: Mapping[str, Any]) -> Track:
        """The setting nearest to these knobs; its name says in what it differs."""
        setting = nearest(self.settings, row)
        if setting.runs not in self._tracks:
            self._tracks[setting.runs] = track_of(self.record, setting, self.variables, 0, "")
        track = self._tracks[setting.runs]
        differs = [f"{n} {word(setting[n])}" for n in row if n in setting and setting[n] != row[n] and not self.known[n].follows]
        track.name = f"shipped record: {', '.join(differs) or 'the same knobs'}, {counted(len(setting.runs), 'seed')}"
        return track
