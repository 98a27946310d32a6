"""One of several processes that exchange, embed, denoise and search together; says what it got.

python tests/support/shared_work.py COORDINATOR PROCESSES PROCESS OUT
"""

import sys
from pathlib import Path
from typing import SupportsIndex

import jax
import numpy as np

from cion_jax import hosts
from cion_jax.config import Denoising, Hosts
from cion_jax.data.labels import LABELS
from cion_jax.denoise.denoise import denoise
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.feature_store import Labelled, write_features
from cion_jax.evaluate.retrieval import search
from cion_jax.hosts import all_gather, join_job, local_part, on_main
from cion_jax.models.zoo import Backbone
from tiny import Tiny


def results() -> dict[str, np.ndarray]:
    """What is computed by shares: who is who, and what queries find."""
    random = np.random.default_rng(0)
    people = random.normal(size=(40, 16))
    role = np.repeat(np.arange(40), 30)
    tracklet = np.arange(1200) // 10
    features = people[role] + 0.4 * random.normal(size=(1200, 16))
    result = denoise(features, tracklet % 7, tracklet, None, Denoising(sigma=0.4, tau=0.1))
    labels = np.zeros(1200, [("identity", "<i4"), ("camera", "<i4")])
    labels["identity"], labels["camera"] = role, tracklet % 3
    asked = np.arange(0, 1200, 13)
    ranked = search(cosine(features[asked], features), labels[asked], labels, block=16)
    return {"labels": result.labels} | ranked._asdict()


def exchanged(process: int) -> dict[str, np.ndarray]:
    """Parts of other lengths and of 64 bits, also empty ones, and a mistake that all hear of."""
    part = np.arange(process * 3, dtype=np.int64).reshape(-1, 3) + (1 << 40)
    try:
        on_main(lambda: 1 / 0)
    except (ZeroDivisionError, UserError) as error:
        heard = str(error)
    shares = all_gather(np.array(local_part(range(11))))
    return {
        "gathered": all_gather(part),
        "empty": all_gather(np.empty((0, 2))),
        "shares": shares,
        "heard": np.array(heard),
    }


class Drawn:
    """A hundred images of noise; it notes which are asked for."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 100

    def pixels_into(self, out: np.ndarray, number: SupportsIndex, kernel: str = "bilinear") -> None:
        self.seen.append(int(number))
        out[:] = np.random.default_rng(int(number)).integers(0, 256, out.shape)

    def where(self, number: SupportsIndex) -> str:
        return str(number)


def embedded(out: Path) -> np.ndarray:
    """Write features in shards of 16, which processes share; the images that this one was asked for."""
    drawn, model = Drawn(), Backbone("tiny", "none", "none", (), (32, 16), False, Tiny(), None)
    split = Labelled(drawn, np.zeros(len(drawn), LABELS), "drawn")
    variables = model.init(jax.random.key(0))
    write_features(out, {"all": split}, model, variables, image_size=(32, 16), batch=8, images_per_shard=16)
    return np.array(sorted(drawn.seen))


if __name__ == "__main__":
    coordinator, processes, process, out = sys.argv[1:]
    hosts.CHUNK_BYTES = 1 << 16  # smaller than what is gathered
    with join_job(Hosts(coordinator, int(processes), int(process))):
        assert jax.process_count() == int(processes)
        seen = embedded(Path(out, "features"))
        np.savez(Path(out, process), **results(), **exchanged(int(process)), seen=seen)
