"""Probes, by what they measure. DEFAULTS are those that cost next to nothing and that every transformer can answer."""

from .activations import residual_rms
from .attention import attention_entropy, attention_entropy_bound, attention_map, entropy_bound, spectral_entropy_bound
from .curvature import critical_length, critical_sharpness, hessian_top_eigenvalue, top_eigenvalue
from .gradients import gradient_norm, gradient_norm_total, gradient_rms, mlp_gradient_rms
from .logits import attention_logit_max, log_z, readout_logit_max
from .losses import train_accuracy, train_loss, validation_accuracy, validation_loss
from .updates import effective_step, learning_rate, update_norm, update_norm_total, update_rms
from .weights import spectral_norm, weight_norm, weight_norm_total

DEFAULTS = (
    train_loss,
    learning_rate,
    attention_entropy,
    attention_entropy_bound,
    spectral_entropy_bound,
    attention_logit_max,
    log_z,
    readout_logit_max,
    residual_rms,
    gradient_norm,
    gradient_norm_total,
    update_norm,
    update_norm_total,
    weight_norm,
    weight_norm_total,
    effective_step,
    spectral_norm,
)

__all__ = [
    "DEFAULTS",
    "attention_entropy",
    "attention_entropy_bound",
    "attention_logit_max",
    "attention_map",
    "critical_length",
    "critical_sharpness",
    "effective_step",
    "entropy_bound",
    "gradient_norm",
    "gradient_norm_total",
    "gradient_rms",
    "hessian_top_eigenvalue",
    "learning_rate",
    "log_z",
    "mlp_gradient_rms",
    "readout_logit_max",
    "residual_rms",
    "spectral_entropy_bound",
    "spectral_norm",
    "top_eigenvalue",
    "train_accuracy",
    "train_loss",
    "update_norm",
    "update_norm_total",
    "update_rms",
    "validation_accuracy",
    "validation_loss",
    "weight_norm",
    "weight_norm_total",
]
