"""Bad input: one sentence that names the thing, its value and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something a person gave cannot be used; the command line prints the sentence and exits with 2."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """The error for a name that does not exist, with the nearest names that do."""
    valid = sorted(valid)
    near = get_close_matches(str(name), valid, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(valid) or 'none'}."
    return InputError(f"There is no {kind} {name!r}; {remedy}")
