"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", CVPR 2022).

    cion pretrain convnext_tiny --data FOLDER --out RUN

Rows are three sizes.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "convnext_tiny": {16: (24, 288), 40: (120, 816), 80: (240, 1656), 141: (432, 2928)},
    "convnext_small": {16: (24, 240), 40: (72, 648), 80: (144, 1368), 141: (264, 2424)},
    "convnext_base": {16: (0, 168), 40: (48, 480), 80: (96, 1008), 141: (192, 1824)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
