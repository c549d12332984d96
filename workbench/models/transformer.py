"""A decoder-only transformer and a small vision transformer made of one set of parts.

Defaults follow Wortsman et al. (arXiv 2309.14322): pre-norm, no biases, untied readout, GELU feed-forward four times as wide,
embeddings normal with standard deviation 1/sqrt(width), other matrices truncated normal with 1/sqrt(fan_in), norms with
epsilon 1e-6. Unlike theirs, positions are learned vectors (drawn like embeddings), not rotations.

muParam (Yang et al. 2022, arXiv 2203.03466, table 3 and definition 4.1, in the form without output multipliers; r = base_width / width):

| tensor | initial std | Adam's rate times | without muParam |
|---|---|---|---|
| token and position embeddings | 1/sqrt(base_width) | 1 | std 1/sqrt(width) |
| patch embedding | 1/sqrt(fan_in), fan_in the patch | 1 | the same |
| matrices of the blocks | 1/sqrt(fan_in) | r | rate times 1 |
| readout | sqrt(r) / sqrt(width) | r | std 1/sqrt(width), rate times 1 |
| gains, biases | 1, 0 | 1 | the same |
| attention logits | q.k sqrt(base_width / heads) / d_head | | q.k / sqrt(d_head) |

At width = base_width both columns coincide. The rates hold for Adam and its like, not for SGD. Wortsman et al. used base width 256.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import taps
from ..errors import InputError
from ..knobs import Knobs, above, at_least, knob
from .initialize import SCALED, Initialization, roles
from .parts import Block, Embedding, causal_mask, head_width, linear, norm_at


class Transformer(Initialization):
    """Shape and stabilizers of a transformer."""

    depth: int = knob(2, 1, 6, valid=at_least(1), group="model", doc="number of blocks")
    width: int = knob(32, 16, 128, valid=at_least(1), group="model", doc="width of the residual stream, a multiple of heads")
    heads: int = knob(4, 1, 8, valid=at_least(1), group="model", doc="attention heads of a block")
    bias: bool = knob(False, group="model", doc="biases in linear layers and LayerNorms")
    muparam: bool = knob(False, group="model", doc="scale initial values, rates and logits with width by muParam")
    base_width: int = knob(32, 16, 128, valid=at_least(1), group="model", doc="width at which muParam changes nothing")
    norm: Literal["layer", "rms"] = knob("layer", acts="switch", group="normalization", doc="LayerNorm or RMSNorm")
    norm_placement: Literal["none", "post", "pre", "peri", "reordered"] = knob(
        "pre", acts="switch", group="normalization", doc="where the norms of a block stand"
    )
    qk_norm: bool = knob(False, acts="switch", group="normalization", doc="LayerNorm on the queries and keys of each head")
    sigma_reparam: bool = knob(
        False, acts="switch", group="normalization", doc="divide matrices by their spectral norm, with a learned gain"
    )
    sigma_init: Literal["spectral", "one"] = knob(
        "spectral", group="normalization", doc="first gain of sigmaReparam: W's spectral norm, or 1"
    )
    softcap: float = knob(0.0, 0.0, 100.0, acts="switch", group="normalization", doc="soft bound on attention logits; 0 is off")
    temperature: float = knob(1.0, 0.1, 10.0, log=True, valid=above(0.0), group="normalization", doc="divisor of the attention logits")

    def __post_init__(self) -> None:
        super().__post_init__()
        head_width(self)


class Patches(Knobs):
    """How a vision transformer cuts a picture."""

    patch: int = knob(7, 4, 14, valid=at_least(1), units="pixel", group="model", doc="side of a patch")


class _Stack(nn.Module):
    """What decoder and vision transformer share: positions, blocks, norms, readout. Abstract: it has no `forward`."""

    def __init__(self, knobs: Any, embedding: nn.Module, positions: int | None, outputs: int) -> None:
        super().__init__()
        self.knobs = knobs
        self.embedding = embedding
        self.positions = None if positions is None else Embedding(positions, knobs.width, _embedding_std(knobs))
        self.embedding_norm = norm_at("embedding", knobs)
        self.blocks = nn.ModuleList(Block(layer, knobs) for layer in range(knobs.depth))
        self.final_norm = norm_at("final", knobs)
        self.readout = linear(knobs, knobs.width, outputs, std=(knobs.base_width**0.5 / knobs.width if knobs.muparam else None))

    def through_blocks(self, x_BLD: Tensor, mask_LL: Tensor, knobs: Any) -> Tensor:
        """From embedded tokens to what the readout reads; without `knobs` with those the model was built with."""
        temperature = (self.knobs if knobs is None else knobs).temperature
        mask_LL = taps.tap("mask", mask_LL)
        placed_BLD = x_BLD if self.positions is None else x_BLD + self.positions.weight[: x_BLD.shape[1]]
        x_BLD = self.embedding_norm(placed_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD, mask_LL, temperature)
        return self.final_norm(x_BLD)


class Decoder(_Stack):
    """Causal transformer over tokens, (B, L) integers to (B, L, vocabulary) logits; `context` defaults to the task's knob.

    Taps: those of the blocks, mask (L, L) and readout.
    """

    def __init__(self, knobs: Any, vocabulary: int, context: int | None = None) -> None:
        embedding = Embedding(vocabulary, knobs.width, _embedding_std(knobs))
        super().__init__(knobs, embedding, knobs.context if context is None else context, vocabulary)

    def forward(self, x_BL: Tensor, knobs: Any = None) -> Tensor:
        length, longest = x_BL.shape[1], self.positions.weight.shape[0]
        if length > longest:
            raise InputError(
                f"A sequence has {length} tokens but the decoder reads at most {longest}; raise 'context' or cut the sequence."
            )
        x_BLD = self.through_blocks(self.embedding(x_BL), causal_mask(length, x_BL.device), knobs)
        return taps.tap("readout", self.readout(x_BLD))


class PairTransformer(_Stack):
    """Classifier of pairs of tokens, (B, 2) integers to (B, classes) logits, read at the last position (arXiv 2501.04697).

    Both tokens see each other, and there are no positions. Taps: those of the blocks, mask (L, L, all true) and readout.
    """

    def __init__(self, knobs: Any, tokens: int, classes: int) -> None:
        super().__init__(knobs, Embedding(tokens, knobs.width, _embedding_std(knobs)), None, classes)

    def forward(self, x_B2: Tensor, knobs: Any = None) -> Tensor:
        everything = torch.ones(x_B2.shape[1], x_B2.shape[1], dtype=torch.bool, device=x_B2.device)
        x_BLD = self.through_blocks(self.embedding(x_B2), everything, knobs)
        return taps.tap("readout", self.readout(x_BLD[:, -1]))


class VisionTransformer(_Stack):
    """Classifier of square pictures, (B, side, side) to (B, classes) logits: patches, blocks without mask, mean over patches.

    Taps: those of the blocks, mask (L, L, all true) and readout.
    """

    def __init__(self, knobs: Any, classes: int, side: int = 28) -> None:
        if side % knobs.patch:
            raise InputError(f"Knob 'patch' is {knobs.patch}, which does not divide the picture's side {side}; choose a divisor of {side}.")
        count = (side // knobs.patch) ** 2
        super().__init__(knobs, linear(knobs, knobs.patch**2, knobs.width), count, classes)
        self.patch = knobs.patch

    def forward(self, x_BYX: Tensor, knobs: Any = None) -> Tensor:
        x_BLD = self.embedding(patches(x_BYX, self.patch))
        everything = torch.ones(x_BLD.shape[1], x_BLD.shape[1], dtype=torch.bool, device=x_BYX.device)
        return taps.tap("readout", self.readout(self.through_blocks(x_BLD, everything, knobs).mean(1)))


def patches(x_BYX: Tensor, patch: int) -> Tensor:
    """Pictures (B, Y, X) as rows of patches, (B, Y X / patch^2, patch^2), both in reading order."""
    rows, columns = x_BYX.shape[1] // patch, x_BYX.shape[2] // patch
    return x_BYX.unflatten(2, (columns, patch)).unflatten(1, (rows, patch)).transpose(2, 3).flatten(3).flatten(1, 2)


def rate_scales(module: nn.Module, knobs: Any) -> dict[str, float]:
    """Parameter name to the factor on its learning rate: base_width / width for matrices and readout under muParam, else 1."""
    ratio = knobs.base_width / knobs.width if getattr(knobs, "muparam", False) else 1.0
    return {name: ratio if role in SCALED else 1.0 for name, role in roles(module).items()}


def _embedding_std(knobs: Any) -> float:
    return (knobs.base_width if knobs.muparam else knobs.width) ** -0.5
