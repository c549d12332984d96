"""Tables as columns in base64, which every front gets whole: some drop the binary buffers of comms (colab-cdn-widget-manager issue 33)."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def packed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table for the wire: numbers as little-endian float32, words as a list of the distinct ones and int32 places in it."""
    return {"rows": len(next(iter(table.values()), ())), "columns": {name: _column(values) for name, values in table.items()}}


def _column(values: np.ndarray | Sequence[str]) -> dict[str, Any]:
    if isinstance(values, np.ndarray):
        return {"numbers": _encoded(np.asarray(values, "<f4"))}
    words = list(dict.fromkeys(values))
    place = {word: i for i, word in enumerate(words)}
    return {"words": words, "places": _encoded(np.array([place[word] for word in values], "<i4"))}


def _encoded(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
