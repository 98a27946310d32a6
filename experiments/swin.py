"""Swin (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021).

    cion pretrain swin_tiny --data FOLDER --out RUN

Rows are three sizes.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "swin_tiny": {16: (24, 144), 40: (72, 384), 80: (144, 792), 141: (264, 1416)},
    "swin_small": {16: (0, 120), 40: (24, 360), 80: (96, 744), 141: (168, 1344)},
    "swin_base": {16: (0, 72), 40: (24, 264), 80: (48, 552), 141: (120, 984)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
