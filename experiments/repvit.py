"""RepViT (Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024).

    cion pretrain repvit_m1_0 --data FOLDER --out RUN

Rows are three sizes, trained with all their branches; `cion export --fused` makes one of them.
Each is the recipe of the CION paper (arXiv 2409.18569), which `Pretraining` has as its defaults: 100 epochs, 960 images
in a step, K = 2, 4, 6, 8. The other levels are the same row with `--level tracklet` or `--level instance`.
"""

from cion_jax.config import Pretraining

#: ESTIMATED images at a time on a device of so many GB, without and with `--remat` (`python -m experiments.memory`); 0
#: where 24 do not fit. Choose `--accumulate` such that devices x accumulate x images is the batch.
FITS: dict[str, dict[int, tuple[int, int]]] = {
    "repvit_m0_9": {16: (72, 456), 40: (216, 1200), 80: (456, 2448), 141: (840, 4344)},
    "repvit_m1_0": {16: (72, 384), 40: (192, 1032), 80: (408, 2112), 141: (720, 3744)},
    "repvit_m1_5": {16: (24, 288), 40: (96, 768), 80: (216, 1560), 141: (384, 2760)},
}

EXPERIMENTS: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in FITS}
