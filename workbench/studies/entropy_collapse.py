"""Attention entropy collapse.

Question.   Does a large learning rate drive the entropy of attention to zero, and is that what spoils training?
Phenomenon. Attention logits grow, each query ends up looking at a single key, and the loss stalls, oscillates or diverges.
Try.        Raise `lr` from 0.003 to 0.1 and watch `attention_entropy`; then switch `qk_norm` or `sigma_reparam` on, or give it
            `warmup`.
Cites.      Zhai et al. 2023, arXiv:2303.06296 (sigmaReparam, the entropy bound); Wortsman et al. 2023, arXiv:2309.14322 (QK-norm,
            learning rates, the loss at initialization standing for a diverged run).
"""
from typing import Literal

from ..design import grid
from ..knobs import knob
from ..learners import Loss, Supervised
from ..models import Decoder, Patches, Transformer, VisionTransformer
from ..numerics import Rounding
from ..optimizers import Optimizers
from ..probes.losses import train_loss
from ..schedules import Schedule
from ..study import Budget, Study
from ..tasks import ImageKnobs, Images, Text, TextKnobs, choose
from ..probe import probe
from .. import taps
import torch

@probe("layer", "head", units="nat", every=10)
def attention_entropy(m):
    """Mean entropy"""
    p = torch.stack(taps.by_layer(m.taps, "attention"))
    return torch.special.entr(p).sum(-1).mean((1, 3))


class Settings(Transformer, Patches, TextKnobs, ImageKnobs, Schedule, Optimizers, Rounding, Loss, defaults={"beta2": 0.95, "depth": 3}):
    """Everything that can be perturbed."""

    data: Literal["text", "images"] = knob("text", doc="what is learned: next characters, or classes of pictures", group="data")


TASK = choose("data", text=Text(), images=Images())


def model(knobs):
    """A decoder for text, a vision transformer for images, made of the same blocks."""
    return Decoder(knobs, Text().vocabulary(knobs)) if knobs.data == "text" else VisionTransformer(knobs, Images().classes(knobs))


study = Study(
    __name__,
    title="Attention entropy collapse",
    knobs=Settings,
    task=TASK,
    learner=Supervised(model, evaluation=TASK.evaluation),
    probes=(train_loss, attention_entropy),
    coords=lambda knobs: dict(layer=range(knobs.depth), head=range(knobs.heads)),
    budgets={"smoke": Budget(grid(lr=[1e-2], width=16, depth=1), 20), "demo": Budget(grid(lr=[1e-2]), 100)},
)
