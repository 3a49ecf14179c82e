"""Distributed training of models that estimate age and gender from a face crop, a body crop, or both."""

__version__ = "0.1.0"
