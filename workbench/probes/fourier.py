"""Fourier spectra of weights: on how few frequencies a row of weights lives."""

import torch
from torch import Tensor

POWER = 2


def inverse_participation_ratio(rows: Tensor, power: int = POWER) -> Tensor:
    """Sum over k of (|F_k| / |F|)^(2 power), F the real Fourier transform of each row (..., n); shape (...). arXiv 2310.13061, power 2.

    1 for a single frequency, one over the number of frequencies for a flat spectrum of power 2. NaN for a row of zeros, which has no
    spectrum.
    """
    largest = rows.abs().amax(-1, keepdim=True)
    spectrum = torch.fft.rfft(rows / largest).abs().square()  # of rows of size 1: squares of tiny weights would be 0
    return ((spectrum / spectrum.sum(-1, keepdim=True)) ** power).sum(-1)
