"""ViT (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021) with the convolutional IBN stem of Luo et al.,
"Self-Supervised Pre-Training for Transformer-Based Person Re-Identification", arXiv 2021.

    cion pretrain vit_small --data FOLDER --out RUN

Rows are three widths of twelve blocks.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "vit_tiny": {16: (72, 216), 40: (192, 552), 80: (432, 1128), 141: (768, 2016)},
    "vit_small": {16: (48, 168), 40: (120, 480), 80: (240, 1008), 141: (456, 1800)},
    "vit_base": {16: (0, 120), 40: (48, 384), 80: (120, 792), 141: (240, 1440)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
