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
    "ghostnet_0_5": {16: (168, 768), 40: (456, 1992), 80: (960, 4032), 141: (1704, 7152)},
    "ghostnet_1_0": {16: (72, 384), 40: (240, 1032), 80: (480, 2088), 141: (840, 3720)},
    "ghostnet_1_3": {16: (72, 312), 40: (168, 792), 80: (360, 1632), 141: (648, 2880)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
