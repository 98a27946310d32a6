"""Settings for a rehearsal of the rows: the smallest step that goes the whole way on a CPU."""

from dataclasses import replace

from cion_jax.recipes import DEBUG

settings = replace(DEBUG, backbone="resnet10_half_ibn", batch=24, crops=replace(DEBUG.crops, local_crops=0))
