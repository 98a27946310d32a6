"""FastViT (Vasu et al., "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization", ICCV 2023).

    cion pretrain fastvit_sa12 --data FOLDER --out RUN

Rows are two sizes with attention in the last stage (`sa`) and one without (`s`), trained with all their branches.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "fastvit_s12": {16: (48, 168), 40: (168, 432), 80: (336, 888), 141: (600, 1560)},
    "fastvit_sa12": {16: (48, 168), 40: (168, 432), 80: (336, 888), 141: (600, 1560)},
    "fastvit_sa24": {16: (24, 144), 40: (96, 384), 80: (192, 816), 141: (360, 1440)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
