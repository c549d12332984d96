"""Models: plain modules built as shells, their initial values, and how to call them with values from a run's state."""

from .convnet import Convnet, Convolutional
from .initialize import Initialization, Rule, initialize, roles
from .linear import DiagonalLinear, LinearModel
from .mlp import MLP, PairMLP, Perceptron, Regularization
from .parts import effective_weights, log_z, logit_scale
from .shell import apply, build
from .transformer import Decoder, PairTransformer, Patches, Transformer, VisionTransformer, rate_scales

__all__ = [
    "MLP",
    "Convnet",
    "Convolutional",
    "Decoder",
    "DiagonalLinear",
    "Initialization",
    "LinearModel",
    "PairMLP",
    "PairTransformer",
    "Patches",
    "Perceptron",
    "Regularization",
    "Rule",
    "Transformer",
    "VisionTransformer",
    "apply",
    "build",
    "effective_weights",
    "initialize",
    "log_z",
    "logit_scale",
    "rate_scales",
    "roles",
]
