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
    "resnet18": {16: (216, 456), 40: (552, 1176), 80: (1152, 2376), 141: (2040, 4224)},
    "resnet50": {16: (48, 168), 40: (120, 480), 80: (264, 960), 141: (480, 1728)},
    "resnet101": {16: (24, 120), 40: (72, 360), 80: (192, 744), 141: (336, 1320)},
    "resnet152": {16: (24, 96), 40: (48, 264), 80: (120, 576), 141: (240, 1032)},
    "resnet18_ibn": {16: (216, 456), 40: (552, 1176), 80: (1152, 2376), 141: (2040, 4224)},
    "resnet50_ibn": {16: (48, 168), 40: (120, 480), 80: (264, 960), 141: (480, 1728)},
    "resnet101_ibn": {16: (24, 120), 40: (72, 360), 80: (192, 744), 141: (336, 1320)},
    "resnet152_ibn": {16: (24, 96), 40: (48, 264), 80: (120, 576), 141: (240, 1032)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
