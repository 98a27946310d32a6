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
    "vit_tiny": {16: (120, 360), 40: (312, 912), 80: (624, 1872), 141: (1104, 3312)},
    "vit_small": {16: (48, 288), 40: (168, 768), 80: (360, 1584), 141: (648, 2808)},
    "vit_base": {16: (24, 192), 40: (72, 552), 80: (192, 1176), 141: (336, 2136)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
