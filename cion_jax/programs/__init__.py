"""Compiled programs, read: what XLA made of a step, on devices that may not be there."""
