"""ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), plain and with IBN-a (Pan et al.,
"Two at Once", ECCV 2018).

    cion pretrain resnet50_ibn --data FOLDER --out RUN

Rows are four depths, each plain and with instance normalisation mixed in (`_ibn`).
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "resnet18": {16: (96, 264), 40: (288, 720), 80: (600, 1440), 141: (1080, 2592)},
    "resnet50": {16: (24, 120), 40: (48, 312), 80: (144, 648), 141: (240, 1176)},
    "resnet101": {16: (0, 96), 40: (48, 264), 80: (96, 528), 141: (168, 960)},
    "resnet152": {16: (0, 72), 40: (24, 216), 80: (72, 432), 141: (120, 792)},
    "resnet18_ibn": {16: (96, 264), 40: (288, 720), 80: (600, 1440), 141: (1080, 2592)},
    "resnet50_ibn": {16: (24, 120), 40: (48, 312), 80: (144, 648), 141: (240, 1176)},
    "resnet101_ibn": {16: (0, 96), 40: (48, 264), 80: (96, 528), 141: (168, 960)},
    "resnet152_ibn": {16: (0, 72), 40: (24, 216), 80: (72, 432), 141: (120, 792)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
