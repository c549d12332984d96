"""Contenders that take turns: each trains for about as long, round after round, so that what else the machine does meets all alike."""

import time
from collections.abc import Mapping

import numpy as np
import torch

from ..engine.threads import allowed, operations_on
from . import Asked
from .contenders import Contender

SIDE = 1024
STEPS = 10  # rounds are multiples of this
MOST_STEPS = 5000


def rounds(
    contenders: Mapping[str, Contender], asked: Asked, about: str, multiple: int = STEPS
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Seconds of an update of one run by contender, one number a round; and after each round the rate of a matrix product."""
    asked.say(f"{about}: making ready")
    steps = {name: steps_for(contender, asked.seconds, multiple) for name, contender in contenders.items()}
    seconds, rates = {name: np.zeros(asked.pairs) for name in contenders}, np.zeros(asked.pairs)
    for i in range(asked.pairs):
        asked.say(f"{about}: round {i + 1} of {asked.pairs}")
        for name in reversed(contenders) if i % 2 else contenders:
            seconds[name][i] = contenders[name].train(steps[name]) / steps[name] / contenders[name].runs
        rates[i] = matrix_product_rate()
    return seconds, rates


def steps_for(contender: Contender, seconds: float, multiple: int = STEPS) -> int:
    """Updates, a multiple of `multiple`, that take about `seconds`. Trains: what is compiled is compiled first."""
    contender.train(multiple)
    steps, took = multiple, contender.train(multiple)
    while took < seconds / 4 and steps < MOST_STEPS:  # a stretch begins slowly, so short ones mislead
        steps = _nearest(multiple, min(4.0, seconds / took / 2) * steps, least=2 * steps)
        took = contender.train(steps)
    return _nearest(multiple, steps * seconds / took)


def matrix_product_rate(repeats: int = 3, side: int = SIDE) -> float:
    """Floating-point operations a second of a product of square float32 matrices on all cores, the best of some."""
    a, b = torch.ones(2, side, side)
    best = float("inf")
    with operations_on(allowed()):
        for _ in range(1 + repeats):
            began = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _nearest(multiple: int, steps: float, least: int = 0) -> int:
    return multiple * max(1, round(min(MOST_STEPS, max(least, steps)) / multiple))
