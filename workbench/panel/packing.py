"""Tables as columns in base64, which every front gets whole: some drop the binary buffers of comms (colab-cdn-widget-manager issue 33)."""

import base64
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ..views.gauges import Words


def packed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table for the wire: numbers as little-endian float32, words as runs of equal ones, each word with how often it stands there."""
    return {"rows": len(next(iter(table.values()), ())), "columns": {name: _column(values) for name, values in table.items()}}


def _column(values: np.ndarray | Sequence[str]) -> dict[str, Any]:
    if isinstance(values, np.ndarray):
        return {"numbers": base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()}
    if not isinstance(values, Words):
        runs = [(word, len(list(same))) for word, same in groupby(values)]
        values = Words([word for word, _ in runs], [times for _, times in runs])
    return {"words": values.words, "times": values.times}
