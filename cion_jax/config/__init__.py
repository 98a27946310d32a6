"""Every setting, as frozen dataclasses: the comment under a field is its help text on the command line."""

from cion_jax.config.augmentation import (
    BNNECK_AUGMENTATION,
    CLUSTER_CONTRAST_AUGMENTATION,
    MGN_AUGMENTATION,
    Augmentation,
    Crops,
)
from cion_jax.config.denoising import Denoising
from cion_jax.config.finetuning import (
    Bnneck,
    BnneckOptimization,
    ClusterContrast,
    ClusterContrastOptimization,
    Clustering,
    Finetuning,
    Mgn,
    MgnOptimization,
    Supervised,
)
from cion_jax.config.hosts import Hosts
from cion_jax.config.numbers import AUTO, IntOrAuto
from cion_jax.config.precision import Precision
from cion_jax.config.pretraining import Head, Optimization, Pretraining, Training
from cion_jax.config.records import MEAN, STD, Kernel, Reading, Writing
from cion_jax.config.video import Tracking
from cion_jax.config.world import World

__all__ = [
    "AUTO",
    "BNNECK_AUGMENTATION",
    "CLUSTER_CONTRAST_AUGMENTATION",
    "MEAN",
    "MGN_AUGMENTATION",
    "STD",
    "Augmentation",
    "Bnneck",
    "BnneckOptimization",
    "ClusterContrast",
    "ClusterContrastOptimization",
    "Clustering",
    "Crops",
    "Denoising",
    "Finetuning",
    "Head",
    "Hosts",
    "IntOrAuto",
    "Kernel",
    "Mgn",
    "MgnOptimization",
    "Optimization",
    "Precision",
    "Pretraining",
    "Reading",
    "Supervised",
    "Tracking",
    "Training",
    "World",
    "Writing",
]
