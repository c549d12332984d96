"""The engine: many runs of a study at once, yielding what they measure. The one place that knows both torch and records."""

from .fork import fork
from .plans import Plan, plan
from .run import run
from .stream import Kept, stream

__all__ = ["Kept", "Plan", "fork", "plan", "run", "stream"]
