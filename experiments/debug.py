"""A pre-training small enough for a CPU, to see whether everything holds together: not a backbone to use.

    cion data synth WORLD --identities 24 --videos 6
    cion pretrain debug --data WORLD --out RUN      # about a minute on two cores

The drawn world's records do not say who is who, so raw tracklets are the identities; the truth stands beside them, for
`--level identity --labels WORLD/truth.npz`. Nearly everything that a real run does is there on a small scale: warm-up,
frozen prototypes in the first epoch, global and local crops, checkpoints. Only K stays the same, for each K is
a program of its own to compile; `--instances 2 4 --stages 0 1` lets it grow. It computes in float32, which CPUs do
best.
"""

from cion_jax.config import Crops, Head, Optimization, Pretraining

#: As in the paper's rows, but small: crops have an eighth of the usual height and width, and so has the blur.
EXPERIMENTS: dict[str, Pretraining] = {
    "debug": Pretraining(
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
}
