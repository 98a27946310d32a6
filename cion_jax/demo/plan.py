"""What the demo draws and trains: by default, in a hurry, and at length."""

from dataclasses import dataclass, replace

from cion_jax.config import Augmentation, Bnneck, BnneckOptimization, Pretraining, World
from cion_jax.recipes import DEMO


@dataclass(frozen=True)
class Plan:
    """One way of running the demo; each world sets all seeds, each of its runs the level or what it begins with."""

    world: World
    training: Pretraining
    finetuning: Bnneck


#: The tracker errs more often than in `World`'s own settings: what there is to be denoised should be worth the work.
#: Fewer are dressed like somebody else: what is learnt in a minute cannot tell those apart, and links them. Both were
#: settled in the worlds of the seeds 4200 and 4201, epochs in that of 5000. Many people are held out: with 48 of them
#: the difference of two trainings hangs on who they are.
DEFAULT = Plan(
    World(
        test_identities=240,
        look_alikes=0.05,
        switches=0.2,
        fragments=0.2,
        background=0.1,
        bad_boxes=0.05,
        height=64,
        width=32,
    ),
    DEMO,
    # Settled in the world of the seed 900.
    Bnneck(
        backbone="resnet10_half_ibn",
        epochs=12,
        epoch_steps=15,
        batch=32,
        image_size=(64, 32),
        augmentation=Augmentation(size=(64, 32), pad=4),
        optimization=BnneckOptimization(learning_rate=6.4e-2, warmup=2),
        identities_share=0.3,
        validation=0.0,
        precision="float32",
        keep=1,
        keep_every=0,
    ),
)

#: Everything is there, but so little of it that the figures mean nothing.
QUICK = Plan(
    World(identities=16, videos=6, cameras=3, length=6, test_identities=8, distractors=20, height=64, width=32),
    replace(DEFAULT.training, epochs=2, batch=24),
    replace(DEFAULT.finetuning, epochs=1, epoch_steps=2, batch=8),
)

#: For an accelerator.
FULL = Plan(
    World(identities=600, videos=120, cameras=12, test_identities=200, distractors=2000),
    replace(
        DEFAULT.training,
        backbone="resnet18_ibn",
        epochs=30,
        batch=240,
        image_size=(128, 64),
        crops=replace(DEMO.crops, global_size=(128, 64), local_size=(64, 32), local_crops=4, blur_radius=(0.05, 1.0)),
        head=replace(DEFAULT.training.head, prototypes=8192, hidden=1024, bottleneck=256, block=8192),
        precision="bfloat16",
    ),
    replace(
        DEFAULT.finetuning,
        backbone="resnet18_ibn",
        epochs=20,
        epoch_steps=0,
        batch=64,
        image_size=(128, 64),
        augmentation=Augmentation(size=(128, 64), pad=5),
        precision="bfloat16",
    ),
)
