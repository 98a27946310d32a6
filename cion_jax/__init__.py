"""Pre-train person re-identification backbones from unlabelled video tracklets, in JAX."""

__version__ = "0.1.0"
