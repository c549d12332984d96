"""Claims: what a study says must be seen, as an effect per seed, an interval and a threshold."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

MIN_SEEDS = 4
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Claim:
    """A statement that stands for a published system, by its `slug` in the atlas; without a slug for what theory says.

    `effect(record)` gives one number a seed (a DataArray over `seed`). The claim holds when the whole 95 % Student interval of
    its mean lies beyond `threshold`, over at least 4 seeds; `above=False` means below it. `paired` says what each seed's two
    runs share.
    """

    slug: str
    statement: str
    effect: Callable[[Any], Any]
    threshold: float
    threshold_source: str
    paired: str
    above: bool = True
    units: str = "1"


@dataclass(frozen=True)
class Verdict:
    """A claim judged on a record. `status` is holds, fails or undecided (too few seeds, or a seed without a value).

    JSON has no NaN: `as_dict` gives None for a number that is not finite, and None is read back as NaN.
    """

    slug: str
    statement: str
    mean: float
    low: float
    high: float
    n: int
    threshold: float
    above: bool
    units: str
    paired: str
    threshold_source: str
    status: str

    def __post_init__(self) -> None:
        for name in ("mean", "low", "high"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, math.nan)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in asdict(self).items()}


def judge(claim: Claim, record: Any) -> Verdict:
    """The verdict on `claim`: mean effect, 95 % interval over seeds and status."""
    import numpy as np

    effects = np.asarray(claim.effect(record), float).ravel()
    mean, low, high = interval(effects)
    beyond = low > claim.threshold if claim.above else high < claim.threshold
    decided = len(effects) >= MIN_SEEDS and bool(np.isfinite(effects).all())
    return Verdict(
        slug=claim.slug,
        statement=claim.statement,
        mean=mean,
        low=low,
        high=high,
        n=len(effects),
        threshold=claim.threshold,
        above=claim.above,
        units=claim.units,
        paired=claim.paired,
        threshold_source=claim.threshold_source,
        status=("holds" if beyond else "fails") if decided else "undecided",
    )


def interval(values: Any) -> tuple[float, float, float]:
    """Mean and the ends of its 95 % Student interval; the ends are NaN for fewer than two values."""
    import numpy as np
    from scipy import stats

    values = np.asarray(values, float)
    mean = float(values.mean()) if values.size else float("nan")
    if values.size < 2 or not np.isfinite(mean):
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, values.size - 1) * stats.sem(values))
    return mean, mean - half, mean + half
