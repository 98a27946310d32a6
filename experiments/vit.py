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
    "vit_tiny": {16: (96, 216), 40: (240, 576), 80: (528, 1152), 141: (936, 2064)},
    "vit_small": {16: (48, 192), 40: (144, 504), 80: (312, 1032), 141: (576, 1848)},
    "vit_base": {16: (24, 144), 40: (72, 408), 80: (168, 840), 141: (312, 1536)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
