"""Knobs: the typed settings of a study.

One field decides four things: how the engine treats the setting, which widget shows it, how the record stores it and which
command-line flag sets it.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from inspect import get_annotations
from typing import Any, Literal, Self, dataclass_transform, get_args, get_origin, get_type_hints

from .errors import InputError, unknown

ACTS = {
    "live": "a lane: a tensor inside the step, may change while training",
    "start": "a lane, read when a run begins",
    "switch": "static; the state is adapted when it changes while training",
    "shape": "static; another value needs a new run",
}


@dataclass(frozen=True)
class Interval:
    """The values a knob may take; an open end excludes its bound."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and (value > self.low if self.open_low else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        lower = f"{'above' if self.open_low else 'at least'} {self.low:g}" if self.low > -math.inf else ""
        upper = f"at most {self.high:g}" if self.high < math.inf else ""
        return " and ".join(filter(None, (lower, upper))) or "finite"


def above(low: float, high: float = math.inf) -> Interval:
    """Everything greater than `low`."""
    return Interval(low, high, open_low=True)


def at_least(low: float) -> Interval:
    """`low` and everything greater."""
    return Interval(low)


def between(low: float, high: float) -> Interval:
    """`low` to `high`, both included."""
    return Interval(low, high)


@dataclass(frozen=True)
class Spec:
    """What is known of one knob: the metadata behind widget, coordinate, flag and report row."""

    name: str
    type: type
    default: Any
    choices: tuple
    low: float | None
    high: float | None
    valid: Interval
    log: bool
    units: str
    doc: str
    acts: str
    group: str
    follows: str
    begins: str
    simulated: bool | None

    @property
    def hint(self) -> str:
        """What the knob does, and whether a number format that it sets is simulated or a real dtype."""
        return self.doc + {None: "", True: " (simulated)", False: " (real dtype)"}[self.simulated]

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the coordinate in the record."""
        return dict(units=self.units, long_name=self.doc) | ({} if self.simulated is None else dict(simulated=int(self.simulated)))

    @property
    def is_lane(self) -> bool:
        """Runs that differ only in lanes train in the same cohort."""
        return self.acts in ("live", "start")

    def check(self, value: Any) -> Any:
        """`value` as this knob's own Python type; InputError if it is of another type or not valid."""
        value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
        if self.choices:
            if not (self._has_type(value) and value in self.choices):
                raise InputError(f"{self._is(value)}; choose one of {', '.join(map(str, self.choices))}.")
            return value
        if not self._has_type(value):
            raise InputError(f"{self._is(value)} ({type(value).__name__}); it must be {_KINDS[self.type]}{self._bounds()}.")
        try:
            value = self.type(value)
        except OverflowError:
            raise InputError(f"{self._is(value)}; it must be {self.valid}, and a number that a float can hold.") from None
        if self.type in (int, float) and value not in self.valid:
            raise InputError(f"{self._is(value)}; it must be {self.valid}.")
        return value

    def parse(self, text: str) -> Any:
        """The value written as `text` on the command line."""
        try:
            return self.check(_PARSERS[self.type](text.strip()))
        except (KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self._is(text)}; it must be {_KINDS[self.type]}{self._bounds()}.") from None

    def _is(self, value: Any) -> str:
        return f"Knob {self.name!r} is {value!r}"

    def _bounds(self) -> str:
        return f", {self.valid}" if self.type in (int, float) else ""

    def _has_type(self, value: Any) -> bool:
        if isinstance(value, bool) or self.type is bool:
            return isinstance(value, bool) and self.type is bool
        if self.type is int and isinstance(value, float):
            return value.is_integer()
        return isinstance(value, (int, float) if self.type is float else self.type)


_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
_BOOLS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False, "on": True, "off": False}
_PARSERS = {float: float, int: int, str: str, bool: lambda text: _BOOLS[text.lower()]}


def knob(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    valid: Interval | None = None,
    log: bool = False,
    units: str = "1",
    doc: str,
    acts: Literal["live", "start", "switch", "shape"] | None = None,
    group: str = "",
    follows: Literal["", "steps"] = "",
    begins: str = "",
    simulated: bool | None = None,
) -> Any:
    """A field of a `Knobs` class.

    `low` and `high` span the slider; only `valid` is enforced (by default: at least 0, or above 0 on a log scale).
    `acts` is one of `ACTS`; numbers with a fraction act live unless said otherwise, everything else is a shape. In a run, a knob that
    `follows` the number of steps has that for its default; one that is a stretch of steps says which knob holds the step where it `begins`.
    A knob of number formats says whether they are `simulated` in a wider dtype or real dtypes.
    """
    valid = valid or (above(0.0) if log else at_least(0.0))
    said = dict(units=units, doc=doc, acts=acts, group=group, follows=follows, begins=begins, simulated=simulated)
    return field(default=default, metadata=dict(low=low, high=high, valid=valid, log=log, **said))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(knob,))
class Knobs:
    """Base of a study's settings: a flat frozen dataclass. Groups are mixins; `defaults` gives an inherited knob another default."""

    def __init_subclass__(cls, defaults: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = {f.name: f for base in reversed(cls.__mro__[1:]) for f in getattr(base, "__dataclass_fields__", {}).values()}
        for name, default in (defaults or {}).items():
            if name not in inherited:
                raise unknown("knob", name, inherited)
            hint = next(get_type_hints(base)[name] for base in cls.__mro__[1:] if name in getattr(base, "__dataclass_fields__", {}))
            cls.__annotations__ = {**get_annotations(cls), name: hint}
            setattr(cls, name, field(default=default, metadata=inherited[name].metadata))
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        for spec in specs(type(self)).values():
            value = getattr(self, spec.name)
            if not hasattr(value, "requires_grad"):  # a tensor stands for a lane, which a step sees unchecked
                object.__setattr__(self, spec.name, spec.check(value))

    def replace(self, **changes: Any) -> Self:
        """These knobs with some values changed, checked."""
        for name in changes:
            if name not in specs(type(self)):
                raise unknown("knob", name, specs(type(self)))
        return replace(self, **changes)

    def filled(self, lanes: Mapping[str, Any]) -> Self:
        """These knobs with lanes put in unchecked, as a step sees them: 0-dim tensors, or numbers for a loop-only learner."""
        filled = object.__new__(type(self))
        filled.__dict__.update({**vars(self), **lanes})
        return filled

    def view(self, prefix: str) -> Self:
        """The same knobs, those called `prefix_name` readable as plain `name` too: how one of two players reads its own."""
        own = {name.removeprefix(f"{prefix}_"): value for name, value in vars(self).items() if name.startswith(f"{prefix}_")}
        if not own:
            raise InputError(f"No knob of {type(self).__name__} begins with {prefix + '_'!r}; use prefixed({prefix!r}, Group).")
        return self.filled(own)


def prefixed(prefix: str, group: type[Knobs]) -> type[Knobs]:
    """`group` with every knob renamed `prefix_name`, for a study that needs the group twice."""
    members: dict[str, Any] = {"__annotations__": {}}
    hints = get_type_hints(group)
    for f in fields(group):
        name = f"{prefix}_{f.name}"
        members["__annotations__"][name] = hints[f.name]
        begins = f.metadata["begins"] and f"{prefix}_{f.metadata['begins']}"
        members[name] = field(default=f.default, metadata={**f.metadata, "doc": f"{prefix}: {f.metadata['doc']}", "begins": begins})
    return type(f"{prefix.capitalize()}{group.__name__}", (Knobs,), members)


@cache
def specs(knobs: type[Knobs]) -> dict[str, Spec]:
    """Name to `Spec`, in the order the fields were written."""
    hints = get_type_hints(knobs)
    return {f.name: _spec(f, hints[f.name]) for f in fields(knobs)}


def _spec(f: Any, hint: Any) -> Spec:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = type(choices[0]) if choices else hint
    if kind not in _KINDS or f.default is MISSING or not f.metadata:
        raise TypeError(f"Knob {f.name!r} must be a float, int, bool, str or Literal made with knob(default, ..., doc=...).")
    meta = dict(f.metadata)
    meta["acts"] = meta["acts"] or ("live" if kind is float else "shape")
    return Spec(name=f.name, type=kind, default=f.default, choices=choices, **meta)
