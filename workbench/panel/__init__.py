"""The live panel: a study trains in the kernel while a person perturbs it and looks on."""

from .panel import Panel, explore

__all__ = ["Panel", "explore"]
