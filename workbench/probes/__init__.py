"""Probes, by what they measure."""
