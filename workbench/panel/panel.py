"""The panel: a study, or a record of one, that a person can perturb and watch; with a screen or without."""

import atexit
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from .. import opening
from ..catalogue import find
from ..errors import InputError, unknown
from ..knobs import specs
from ..study import Study
from . import interrupts
from .controls import seeds_of
from .desk import Desk
from .player import CLOSED, Player, Task
from .replay import Replay

PATIENCE = 120.0
MEGABYTE = 2**20


class Values(MutableMapping[str, Any]):
    """`panel.knobs`: the knobs of the selected branch; a value that is set acts from the next step on."""

    __slots__ = ("_panel",)  # a knob set like an attribute is an error, not a new attribute

    def __init__(self, panel: "Panel") -> None:
        self._panel = panel

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise unknown("knob", name, self)
        return self._panel.desk.source.row[name]

    def __contains__(self, name: object) -> bool:
        return name in self._panel.desk.source.knobs

    def __setitem__(self, name: str, value: Any) -> None:
        self._panel.press("set", **{name: value})

    def __delitem__(self, name: str) -> None:
        self._panel.press("default", knob=name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._panel.desk.source.knobs)

    def __len__(self) -> int:
        return len(self._panel.desk.source.knobs)

    def __repr__(self) -> str:
        return repr(dict(self))


class Panel:
    """What `wb.explore` gives. In a notebook it shows itself; without a screen it is used by `knobs`, `press` and `record`."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.knobs = Values(self)
        self.front: Any = None
        self._player = Player(desk, self._publish)
        self._player.start()
        atexit.register(self._player.close)  # a thread that computes while Python ends would crash it
        interrupts.opened(self)

    def press(self, button: str, **arguments: Any) -> None:
        """Press a button, and wait until that has been carried out; InputError, in a sentence, if it cannot be.

        Buttons are the public methods of `Desk`: run(until), pause, step, reset, set(knob=value), twin, back(step), select(number), ...
        """
        self._ask(Task(button, arguments))

    def wait(self, step: int | None = None, seconds: float = PATIENCE) -> None:
        """Until it has paused, or has reached a step; InputError if that takes longer than so many seconds, or if the panel is closed."""
        if self._player.is_closed:
            raise InputError(CLOSED)
        end = time.monotonic() + seconds
        while (self.desk.running or self.desk.work is not None) and (step is None or self.desk.source.step < step):
            if time.monotonic() > end:
                raise InputError(f"After {seconds:g} s the panel stands at step {self.desk.source.step}; wait longer, or press pause.")
            time.sleep(0.005)

    def pause(self) -> None:
        """Ask for a pause, from any thread, without waiting for it."""
        self._player.ask(Task("pause"))

    @property
    def record(self) -> xr.DataTree:
        """The record of all branches as they stand, see `wb.run`; branches are told apart by the coordinate `branch`."""
        return self._ask(Task("record", compute=Desk.record))

    @property
    def python(self) -> str:
        """The Python that makes the same runs again, branches included."""
        return self._ask(Task("python", compute=lambda desk: desk.python))

    @property
    def shared(self) -> str:
        """The knobs of the selected branch as a short text, which `press("load", text=...)` reads."""
        return self._ask(Task("shared", compute=lambda desk: desk.shared))

    @property
    def state(self) -> dict[str, Any]:
        """All that is seen beside the charts, as plain values."""
        return self._ask(Task("state", compute=Desk.state))

    def tables(self, gauge: str) -> dict[str, Any]:
        """The tables that a gauge's chart is drawn from now, by the name of its data."""
        return self._ask(Task("tables", compute=lambda desk: desk.tables(gauge)))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the record to a file, which must not exist unless `overwrite`."""
        self.press("save", path=str(path), overwrite=overwrite)

    def close(self) -> None:
        """Stop the thread, and take the panel off the screen."""
        atexit.unregister(self._player.close)
        self._player.close()
        if self.front is not None:
            self.front.close()
            self.front = None

    @property
    def publishing(self) -> float:
        """The share of the busy time that went into publishing."""
        busy = self._player.busy
        return busy["publishing"] / max(sum(busy.values()), 1e-9)

    def _ask(self, task: Task) -> Any:
        try:
            return self._player.ask(task).result(PATIENCE)
        except TimeoutError as error:
            raise InputError(f"{task.name!r} takes longer than {PATIENCE:g} s and goes on; panel.pause() breaks it off.") from error

    def _publish(self) -> None:
        front = self.front  # which another thread may take away meanwhile
        if front is not None:
            front.take(self.desk, self._player.speed)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        from .front import front_of

        if self.front is None:
            self.front = front_of(self.desk, self._player)
        return self.front._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        here = self.desk.source
        now = "closed" if self._player.is_closed else "running" if self.desk.running else "paused"
        return f"<Panel of {self.desk.study.name}: {here.track.name} at step {here.step}, {now}>"


def explore(
    study: str | Study | xr.DataTree,
    *,
    preset: str | None = None,
    seeds: int = 1,
    replay: bool | str | Path = False,
    predict: bool = False,
    device: str = "auto",
    memory: int = 128,
    gauges: Sequence[str] = (),
    **knobs: Any,
) -> Panel:
    """Open the live panel of a study: knobs, charts, and training that reacts to them.

    It begins paused at step 0 with one run of the default knobs, or with a `preset`, `knobs` and `seeds` (up to 16). With `replay` nothing
    is trained and the panel moves over a record: the shipped one, or that of a path; a record given as the first argument is replayed too.
    `predict` asks what will happen before it shows it. `memory` bounds the states kept for going back, in MB; `gauges` names charts to
    show instead of the usual ones. Raises InputError for anything that cannot be opened.
    """
    record = study if isinstance(study, xr.DataTree) else None
    found = _study(study)
    asked = {**(found.preset(preset).knobs if preset else {}), **knobs}
    row = _row(found, asked)
    if record is None and replay:
        record = _record(found, replay)
    if isinstance(memory, bool) or not (isinstance(memory, int) and memory > 0):
        raise InputError(f"memory is {memory!r}; give a whole number of megabytes above 0.")
    if predict and not found.predictions:
        raise InputError(f"predict is {predict!r}, and study {found.name!r} has no question to ask; open it without.")
    source, where = _replay(found, record, row) if record is not None else _experiment(found, row, seeds, device, memory)
    shown = {gauges} if isinstance(gauges, str) else set(gauges)
    desk = Desk(found, source, where, shown=shown, predicting=predict)
    if desk.is_replay:
        desk.message = desk.source.departure({name: row[name] for name in asked})
    return Panel(desk)


def _study(given: Any) -> Study:
    if isinstance(given, Study):
        return given
    if isinstance(given, xr.DataTree):
        if "study" not in given.attrs:
            raise InputError("The DataTree is no record of a study; open one with wb.open, or make one with wb.run.")
        return find(str(given.attrs["study"]))
    if not isinstance(given, str):
        raise InputError(f"study is {given!r}; give a study's name, a Study or a record.")
    return find(given)


def _record(study: Study, replay: Any) -> xr.DataTree:
    if not isinstance(replay, bool | str | Path):
        raise InputError(f"replay is {replay!r}; give True for the shipped record, or the path of one.")
    record = opening.open_record(study.name if replay is True else replay)
    if record.attrs.get("study") != study.name:
        raise InputError(f"{str(replay)!r} is a record of study {record.attrs.get('study')!r}, not of {study.name!r}; explore that one.")
    return record


def _row(study: Study, asked: Mapping[str, Any]) -> dict[str, Any]:
    chosen = study.knobs().replace(**asked)
    return {name: getattr(chosen, name) for name in specs(study.knobs)}


def _experiment(study: Study, row: Mapping[str, Any], seeds: int, device: str, memory: int) -> tuple[Any, str]:
    from ..engine import devices
    from ..engine.experiment import Experiment, device_for, horizon

    chosen = range(seeds_of(seeds))
    place = device_for(study, row, chosen, str(device))
    free = [p.name for p in study.probes if p.cost == "free"]
    experiment = Experiment(study, row, chosen, steps=horizon(study), measured=free, device=place, memory=memory * MEGABYTE)
    return experiment, devices.called(place)


def _replay(study: Study, record: xr.DataTree, row: Mapping[str, Any]) -> tuple[Any, str]:
    return Replay(study, record, row), f"a replay; trained on {record.attrs.get('device', 'an unknown device')}"
