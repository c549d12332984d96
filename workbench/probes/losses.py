"""Losses, on the batch and held out."""
from ..probe import probe


@probe(units="nat")
def train_loss(m):
    """Training loss"""
    return m.loss
