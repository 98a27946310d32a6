"""Settings by name or from a file: what `cion pretrain EXPERIMENT` starts from.

Each of the paper's 32 backbones has a row of its name: the recipe of the CION paper (arXiv 2409.18569), which
`Pretraining` has as its defaults, with that backbone. `debug` shows within minutes, on a CPU, that everything holds
together. `demo` is what `cion demo` trains, for tracklets of 64 x 32 pixels. `small` is for one's own tracklets on a
GPU: for 100,000 images an hour at 10 TFLOP/s; `people` is for them on a CPU in minutes. A Python file that defines
`settings` is a recipe of one's own.

Nothing heavy is imported here: `cion pretrain --help` lists the names.
"""

import difflib
import runpy
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cion_jax.config import (
    AUTO,
    Bnneck,
    BnneckOptimization,
    ClusterContrast,
    Clustering,
    Crops,
    Finetuning,
    Head,
    Mgn,
    Optimization,
    Pretraining,
)
from cion_jax.errors import UserError
from cion_jax.untrusted import check_is_file

#: The backbones of the paper, by family.
PAPER = (
    *("resnet18", "resnet50", "resnet101", "resnet152"),
    *("resnet18_ibn", "resnet50_ibn", "resnet101_ibn", "resnet152_ibn"),
    *("convnext_tiny", "convnext_small", "convnext_base"),
    *("edgenext_x_small", "edgenext_small", "edgenext_base"),
    *("ghostnet_0_5", "ghostnet_1_0", "ghostnet_1_3"),
    *("repvit_m0_9", "repvit_m1_0", "repvit_m1_5"),
    *("fastvit_s12", "fastvit_sa12", "fastvit_sa24"),
    *("vit_tiny", "vit_small", "vit_base"),
    *("swin_tiny", "swin_small", "swin_base"),
    *("volo_d1", "volo_d2", "volo_d3"),
)

#: Nearly everything that a real run does, on a small scale: warm-up, frozen prototypes in the first epoch, global and
#: local crops, checkpoints. Crops have an eighth of the usual height and width, and so has the blur. K stays the same,
#: since each K is a program of its own to compile.
DEBUG = Pretraining(
    backbone="resnet18",
    level="tracklet",
    epochs=2,
    batch=48,
    instances=(4,),
    stages=(0,),
    image_size=(64, 32),
    crops=Crops(global_size=(32, 16), local_size=(16, 8), local_crops=2, blur_radius=(0.0125, 0.25)),
    head=Head(prototypes=1024, hidden=256, bottleneck=64, block=1024),
    optimization=Optimization(warmup=1),
    precision="float32",
    keep_every=0,
)

#: What `cion demo` trains at the identity level.
DEMO = Pretraining(
    backbone="resnet10_half_ibn",
    epochs=18,
    batch=48,
    instances=(4,),
    stages=(0,),
    image_size=(64, 32),
    # Colours are jittered by what cameras change, not by what people differ in: few as there are here, they are told
    # apart by the colours of their clothes. A blur of the usual pixels would leave nothing of so small a crop.
    crops=Crops(
        global_size=(32, 16),
        local_crops=0,
        jitter_strength=(0.2, 0.2, 0.15, 0.02),
        grey=0.0,
        solarize=0.0,
        blur_radius=(0.0125, 0.25),
    ),
    # With so few steps the teacher must be sharper than usual, and follow faster, to get anywhere.
    head=Head(prototypes=1024, hidden=256, bottleneck=64, block=1024, teacher_temperature=0.02),
    optimization=Optimization(learning_rate=3.2e-3, warmup=0.5, frozen=0, momentum=0.99),
    precision="float32",
    keep=1,
    keep_every=0,
)

#: Half the paper's height and width, a light backbone, and K that stays: one program. The batch is the same everywhere,
#: since what is learnt depends on it; a device that cannot hold it takes it in parts. `--dry-run` tells the work: 33
#: PFLOP for 100,000 images.
SMALL = Pretraining(
    backbone="resnet18_ibn",
    epochs=30,
    batch=256,
    accumulate=AUTO,
    instances=(4,),
    stages=(0,),
    image_size=(128, 64),
    crops=Crops(global_size=(128, 64), local_size=(64, 32), local_crops=4, blur_radius=(0.05, 1.0)),
    head=Head(prototypes=8192, hidden=1024, bottleneck=256),
    optimization=Optimization(warmup=3),
    keep_every=0,
)

#: For the people of one's own videos, on a CPU and in minutes: what the demo trains, for a shorter time.
PEOPLE = replace(DEMO, epochs=8)

RECIPES: dict[str, Pretraining] = {name: Pretraining(backbone=name) for name in PAPER} | {
    "small": SMALL,
    "demo": DEMO,
    "people": PEOPLE,
    "debug": DEBUG,
}

#: Images in a batch of published fine-tuning by bnneck, on Market-1501 and on MSMT17, where it is not 64.
_BATCHES: dict[str, tuple[int, int]] = {
    "ghostnet_0_5": (32, 32),
    "edgenext_x_small": (64, 32),
    "edgenext_small": (256, 64),
    "repvit_m0_9": (128, 64),
    "repvit_m1_0": (256, 64),
    **dict.fromkeys(("resnet18", "resnet18_ibn"), (256, 32)),
    **dict.fromkeys(("resnet50", "resnet50_ibn"), (512, 64)),
    **dict.fromkeys(("resnet101", "resnet152", "resnet152_ibn"), (128, 128)),
    "resnet101_ibn": (64, 128),
    "convnext_small": (256, 256),
    "convnext_base": (120, 256),
    "volo_d1": (256, 128),
    "volo_d2": (256, 64),
    "volo_d3": (128, 64),
    **dict.fromkeys(("vit_tiny", "vit_small"), (512, 512)),
    "vit_base": (384, 384),
}
#: What else is unlike the others.
_ODD = {
    ("ghostnet_0_5", "market1501"): BnneckOptimization(warmup=40),
    ("convnext_base", "market1501"): BnneckOptimization(learning_rate=8e-4 * 64 / 120),
    ("swin_base", "msmt17"): BnneckOptimization(learning_rate=2e-4),
}
#: Data sets that fine-tuning was published for.
DATA_SETS = ("market1501", "msmt17")

_Settings = TypeVar("_Settings")


def recipe(name: str) -> Pretraining:
    """The recipe of a name, or the `settings` that a Python file defines."""
    if name.endswith(".py"):
        return read_settings(Path(name), Pretraining)
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.5)
        names = f"there are {', '.join(RECIPES)}, or a .py file of settings"
        hint = f"did you mean {' or '.join(near)}?" if near else names
        raise UserError(f"no experiment is called {name!r}; {hint}")
    return RECIPES[name]


def published(settings: Finetuning, backbone: str, data_set: str) -> Finetuning:
    """Settings of a method as they were published for a backbone and a data set. In these nobody is set aside."""
    settings = replace(settings, backbone=backbone)
    if isinstance(settings, Bnneck):
        batch = _BATCHES.get(backbone, (64, 64))[DATA_SETS.index(data_set)]
        optimization = _ODD.get((backbone, data_set), BnneckOptimization())
        return replace(settings, batch=batch, validation=0.0, resize="bicubic", optimization=optimization)
    if isinstance(settings, Mgn):
        return replace(settings, validation=0.0, resize="bicubic")
    assert isinstance(settings, ClusterContrast)
    clustering = Clustering(eps=0.6 if data_set == "market1501" else 0.7)
    return replace(settings, clustering=clustering, pixel_scale="augmentation", resize="bicubic")


def read_settings(path: Path, kind: type[_Settings]) -> _Settings:
    """What a Python file calls `settings`, which must be of this kind. The file is run."""
    check_is_file(path, "name a Python file that defines `settings`")
    try:
        settings = runpy.run_path(str(path)).get("settings")
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
    if not isinstance(settings, kind):
        raise UserError(f"{path}: `settings` is {settings!r}; make it a cion_jax.config.{kind.__name__}")
    return settings
