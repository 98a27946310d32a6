"""VOLO (Yuan et al., "VOLO: Vision Outlooker for Visual Recognition", TPAMI 2022).

    cion pretrain volo_d1 --data FOLDER --out RUN

Rows are three sizes.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "volo_d1": {16: (24, 240), 40: (96, 624), 80: (216, 1296), 141: (408, 2304)},
    "volo_d2": {16: (24, 168), 40: (48, 504), 80: (120, 1032), 141: (240, 1848)},
    "volo_d3": {16: (0, 144), 40: (24, 432), 80: (72, 912), 141: (144, 1632)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
