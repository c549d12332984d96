"""Bad input: one sentence that names the thing, its value and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something a person gave cannot be used; the command line prints the sentence and exits with 2."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """The error for a name that does not exist, with the nearest names, or else those that end in it, or all."""
    valid = sorted(valid)
    almost, near = (get_close_matches(str(name), valid, n=n, cutoff=cutoff) for n, cutoff in ((1, 0.9), (3, 0.5)))
    near = almost or near or [v for v in valid if v.endswith(f"_{name}")]
    listed = map(repr, valid) if any("," in v for v in valid) else valid
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(listed) or 'none'}."
    return InputError(f"There is no {kind} {name!r}; {remedy}")
