"""Where batches come from: `task(knobs, key) -> batch` of one run; `task.reads` names the knobs it reads."""

from .batch import Batch
from .choice import Choice, choose
from .images import ImageKnobs, Images
from .text import Text, TextKnobs

__all__ = ["Batch", "Choice", "ImageKnobs", "Images", "Text", "TextKnobs", "choose"]
