"""Taps: the one hole in a model. Probes read a named tensor there, edits change it there.

A model calls `tap("0.logits", x)` and goes on with what it gets back. Outside `recording` that is x itself. The innermost
recording is held in a plain module-level list, which torch.compile can trace (it cannot trace a ContextVar).
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from torch import Tensor

from . import noise


class Site(NamedTuple):
    """Where an edit acts: the tap's full name, the run's knobs, and a key of its own for what it draws (None outside training)."""

    name: str
    knobs: Any
    key: Tensor | None


Edit = Callable[[Tensor, Site], Tensor]


class Frame:
    """What one forward pass left behind: `seen` tensors by tap name, `kept` new buffer values by buffer name."""

    def __init__(self, edits: Mapping[str, Edit], knobs: Any, key: Tensor | None) -> None:
        self.edits, self.knobs, self.key = edits, knobs, key
        self.seen: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.prefix = ""

    def site(self, name: str) -> Site:
        """The place of the full name `name` in this pass."""
        return Site(name, self.knobs, None if self.key is None else noise.fold(self.key, name))


_frames: list[Frame] = []


class recording:
    """`with recording(edits, knobs, key) as frame:` gathers the taps of the passes inside.

    `edits` maps a tap's last word to an edit. What is drawn in the pass is drawn from `key`; without one nothing is.
    """

    def __init__(self, edits: Mapping[str, Edit] | None = None, knobs: Any = None, key: Tensor | None = None) -> None:
        self.frame = Frame(edits or {}, knobs, key)

    def __enter__(self) -> Frame:
        _frames.append(self.frame)
        return self.frame

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _frames.pop()


class scope:
    """`with scope("fake"):` prefixes the names of taps inside with `fake/`."""

    def __init__(self, name: str) -> None:
        self.name, self.before = name, ""

    def __enter__(self) -> Self:
        if _frames:
            self.before = _frames[-1].prefix
            _frames[-1].prefix = f"{self.before}{self.name}/"
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if _frames:
            _frames[-1].prefix = self.before


def tap(name: str, x: Tensor) -> Tensor:
    """Let probes see `x` under `name` and edits change it. A name may occur once in a recording; loops pass an index."""
    if not _frames:
        return x
    frame = _frames[-1]
    full = frame.prefix + name
    if full in frame.seen:
        raise ValueError(f"Tap {full!r} occurs twice in one pass; put the loop's index into its name or wrap the pass in scope().")
    edit = frame.edits.get(last_word(name))
    x = x if edit is None else edit(x, frame.site(full))
    frame.seen[full] = x
    return x


def is_edited(word: str) -> bool:
    """Whether this pass changes the taps of this last word: a model may then make a tensor apart that it need not make else."""
    return bool(_frames) and word in _frames[-1].edits


def keep(name: str, value: Tensor) -> None:
    """Hand a buffer's new value (BatchNorm statistics, power-iteration vectors) to the learner, which puts it into the state."""
    if _frames:
        _frames[-1].kept[name] = value


def key_of(name: str) -> Tensor | None:
    """The key from which a part of a model called `name` draws in this pass (dropout); None where nothing is to be drawn."""
    return _frames[-1].site(_frames[-1].prefix + name).key if _frames else None


def last_word(name: str) -> str:
    """`logits` of `fake/0.logits`."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[-1]


def by_layer(seen: Mapping[str, Tensor], word: str, prefix: str = "") -> list[Tensor]:
    """The tensors tapped as `prefix0.word`, `prefix1.word`, ... in that order."""
    found = {name: x for name, x in seen.items() if name.startswith(prefix) and last_word(name) == word}
    return [found[name] for name in sorted(found, key=lambda n: int(n[len(prefix) :].split(".")[0]))]
