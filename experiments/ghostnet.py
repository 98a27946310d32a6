"""GhostNet (Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020).

    cion pretrain ghostnet_1_0 --data FOLDER --out RUN

Rows are three widths: 0.5, 1.0 and 1.3 times the paper's.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "ghostnet_0_5": {16: (384, 1488), 40: (1008, 3864), 80: (2064, 7800), 141: (3672, 13824)},
    "ghostnet_1_0": {16: (192, 792), 40: (504, 2088), 80: (1056, 4224), 141: (1872, 7488)},
    "ghostnet_1_3": {16: (144, 624), 40: (384, 1632), 80: (816, 3312), 141: (1440, 5856)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
