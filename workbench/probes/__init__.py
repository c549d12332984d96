"""Probes, by what they measure. DEFAULTS are those that cost next to nothing and that every transformer can answer."""

from .activations import residual_rms
from .attention import attention_entropy, attention_entropy_bound, attention_map, entropy_bound, spectral_entropy_bound
from .curvature import critical_length, critical_sharpness, hessian_top_eigenvalue, hutchinson_trace, top_eigenvalue
from .gauss_newton import per_sample_gradients
from .gradients import gradient_norm, gradient_norm_total, gradient_rms, gradient_weight_cosine, mlp_gradient_rms
from .logits import attention_logit_max, log_z, readout_logit_max, readout_rms, saturated_share
from .losses import applied_loss_scale, train_accuracy, train_loss, update_skipped, validation_accuracy, validation_loss, zero_loss_share
from .ranges import activation_max, overflow_share, underflow_share
from .sharpness import logit_sharpness, sharpness_in_logits
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
    "activation_max",
    "applied_loss_scale",
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
    "gradient_weight_cosine",
    "hessian_top_eigenvalue",
    "hutchinson_trace",
    "learning_rate",
    "log_z",
    "logit_sharpness",
    "mlp_gradient_rms",
    "overflow_share",
    "per_sample_gradients",
    "readout_logit_max",
    "readout_rms",
    "residual_rms",
    "saturated_share",
    "sharpness_in_logits",
    "spectral_entropy_bound",
    "spectral_norm",
    "top_eigenvalue",
    "train_accuracy",
    "train_loss",
    "underflow_share",
    "update_norm",
    "update_norm_total",
    "update_rms",
    "update_skipped",
    "validation_accuracy",
    "validation_loss",
    "weight_norm",
    "weight_norm_total",
    "zero_loss_share",
]
