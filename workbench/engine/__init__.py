"""The engine: many runs of a study at once, yielding what they measure. The one place that knows both torch and records."""

from .fork import fork
from .run import run
from .stream import Kept, Plan, plan, stream

__all__ = ["Kept", "Plan", "fork", "plan", "run", "stream"]
