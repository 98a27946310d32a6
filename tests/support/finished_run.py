"""A folder as a finished run of pre-training leaves it, with a small backbone and a drawn world."""

import json
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.config import World
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.models.layers import Conv, keep
from cion_jax.models.norms import BatchNorm
from cion_jax.models.zoo import Family, backbone
from cion_jax.weights.file import Weights, save
from tfrecords_tools.world import build, truth

SIZE = (32, 16)
WORLD = World(identities=5, videos=4, cameras=3, test_identities=14, distractors=6, height=32, width=16, seed=3)


class Small(nn.Module):
    """One convolution, whose map it offers."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu(BatchNorm(name="bn1")(Conv(8, 3, 4, name="conv1")(x), train))
        return jnp.mean(keep(self, "stage1", x), axis=(1, 2))


FAMILY = Family("Small", "none", SimpleNamespace(VARIANTS={"small": Small()}, ORDER="conv1 bn1"))


def metrics(steps: int, epochs: int) -> list[dict]:
    """Rows as a journal writes them."""
    random, rows = np.random.default_rng(0), []
    for step in range(steps):
        values = {
            "loss": 9 - step / steps + random.random(),
            "entropy": 3.0,
            "feature_std": 0.5,
            "learning_rate": 1e-3,
        }
        rows.append({"step": step, "time": 0.0, "epoch": (step + 1) / steps * epochs, **values})
        if step:
            rows[-1]["images_per_second"] = 100.0
    return rows


def write_run(run: Path, world: Path) -> Path:
    """A finished run of three epochs with two relabellings and an evaluation."""
    (run / "labels").mkdir(parents=True)
    settings = {"backbone": "small", "level": "identity", "epochs": 3, "relabel": [1, 2], "labels": f"/{'labels' * 12}"}
    settings |= {"image_size": [32, 16], "evaluate": None, "head": {"prototypes": 64}}
    (run / "settings.json").write_text(json.dumps(settings))
    records = Records(world)
    origin = {"data": str(world), "fingerprint": records.card.fingerprint, "began": "2026-11-21 10:00 UTC"}
    (run / "origin.json").write_text(json.dumps(origin | {"environment": {"jax": "0.10.2", "host": "2 cores"}}))
    rows = metrics(120, 3)
    rows[-1] |= {"mAP": 0.25, "rank_1": 0.5, "warning": "all <fell> down"}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = truth(build(WORLD)["train"])
    for epoch, levels in ((1, 2), (2, 3)):
        noise = np.array([[len(labels), 9, 30, 0]] + [[len(labels) - 20, 5 + epoch, 0, 1]] * (levels - 1))
        path = run / "labels" / f"epoch-{epoch:05d}.npz"
        write_labelling(path, labels if epoch == 2 else 0 * labels, records.card.fingerprint, {}, noise=noise)
    model = backbone("small", image_size=SIZE)
    save(run / "teacher.safetensors", Weights(model, model.init(jax.random.key(1))))
    return run
