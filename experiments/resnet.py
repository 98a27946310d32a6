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
    "resnet18": {16: (336, 648), 40: (912, 1656), 80: (1872, 3384), 141: (3336, 6000)},
    "resnet50": {16: (48, 192), 40: (168, 552), 80: (336, 1128), 141: (600, 1992)},
    "resnet101": {16: (24, 144), 40: (96, 408), 80: (216, 816), 141: (408, 1488)},
    "resnet152": {16: (24, 96), 40: (72, 288), 80: (168, 624), 141: (288, 1128)},
    "resnet18_ibn": {16: (336, 648), 40: (912, 1656), 80: (1872, 3384), 141: (3312, 6000)},
    "resnet50_ibn": {16: (48, 192), 40: (168, 552), 80: (336, 1128), 141: (600, 1992)},
    "resnet101_ibn": {16: (24, 144), 40: (96, 408), 80: (216, 816), 141: (408, 1488)},
    "resnet152_ibn": {16: (24, 96), 40: (72, 288), 80: (168, 624), 141: (288, 1128)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
