"""Weights to and from PyTorch: names by rule, files without PyTorch."""
