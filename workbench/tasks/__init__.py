"""Where batches come from: `task(knobs, key) -> batch` of one run; `task.reads` names the knobs it reads."""

from .batch import Batch
from .choice import Choice, choose
from .images import ImageKnobs, Images
from .mixtures import MixtureKnobs, Mixtures
from .modular import CorruptedModular, Corruption, Modular, ModularKnobs
from .parity import Parity, ParityKnobs
from .samples import ImageSamples, OrthogonalSamples, SampleKnobs, SparseKnobs, SparseSamples
from .split import Split
from .text import Text, TextKnobs
from .weak_strong import WeakStrong, WeakStrongKnobs

__all__ = [
    "Batch",
    "Choice",
    "CorruptedModular",
    "Corruption",
    "ImageKnobs",
    "ImageSamples",
    "Images",
    "MixtureKnobs",
    "Mixtures",
    "Modular",
    "ModularKnobs",
    "OrthogonalSamples",
    "Parity",
    "ParityKnobs",
    "SampleKnobs",
    "SparseKnobs",
    "SparseSamples",
    "Split",
    "Text",
    "TextKnobs",
    "WeakStrong",
    "WeakStrongKnobs",
    "choose",
]
