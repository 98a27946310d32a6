"""EdgeNeXt (Maaz et al., "EdgeNeXt: Efficiently Amalgamated CNN-Transformer Architecture for Mobile Vision
Applications", ECCV workshops 2022).

    cion pretrain edgenext_small --data FOLDER --out RUN

Rows are three sizes.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "edgenext_x_small": {16: (120, 912), 40: (360, 2376), 80: (720, 4824), 141: (1296, 8544)},
    "edgenext_small": {16: (72, 624), 40: (240, 1632), 80: (480, 3288), 141: (840, 5856)},
    "edgenext_base": {16: (48, 360), 40: (120, 984), 80: (264, 1992), 141: (480, 3552)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
