"""The scores that fine-tuning has reached elsewhere from published CION weights: what to reach, and with which command.

python -m experiments.published
python -m experiments.published --memory    # with the memory that each takes on a device; minutes of tracing

The scores are those that the paper's repository prints; none was measured here. The commands begin with the settings
that were published for the backbone and the data set. Memory is estimated from shapes alone, as
`experiments.benchmarks.memory` does: parameters, gradients, the optimizer's moments, and what the backward pass holds
of each image. The one check so far is resnet18 in float32 at 128x64, which XLA plans for a CPU with 137 MB and 3.6 MB
an image by bnneck, and with 589 and 3.1 MB by mgn; estimated are 139 and 3.9, and 527 and 4.9. No figure has been
compared with a GPU; `cion finetune ... --dry-run` tells what XLA plans on yours.
"""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.config import Bnneck, Finetuning, Mgn
from cion_jax.models.zoo import backbone
from cion_jax.recipes import DATA_SETS, published
from cion_jax.run.finetuning import FinetuningMethod, network_of
from experiments.benchmarks.command import command
from experiments.benchmarks.memory import Need, bytes_of, held_bytes

#: Identities; another number hardly changes the memory.
_CLASSES = 751
#: Images that are traced: so many that copies of the parameters, which do not grow with them, vanish among them.
_IMAGES = 960


class Row(NamedTuple):
    """Percent, on Market-1501 and on MSMT17."""

    method: str
    backbone: str
    market_map: float
    market_rank_1: float
    msmt_map: float
    msmt_rank_1: float


ROWS = (
    Row("mgn", "resnet50", 92.3, 97.1, 70.1, 87.8),
    Row("mgn", "resnet101", 93.1, 97.1, 71.7, 88.8),
    Row("mgn", "resnet152", 93.1, 97.3, 72.4, 89.2),
    Row("mgn", "resnet50_ibn", 93.3, 97.3, 74.3, 89.8),
    Row("mgn", "resnet101_ibn", 93.8, 97.2, 76.0, 90.7),
    Row("mgn", "resnet152_ibn", 94.3, 97.3, 76.8, 90.8),
    Row("bnneck", "ghostnet_0_5", 81.0, 92.0, 39.6, 65.4),
    Row("bnneck", "ghostnet_1_0", 87.7, 95.1, 53.7, 76.9),
    Row("bnneck", "ghostnet_1_3", 88.8, 95.2, 55.4, 78.1),
    Row("bnneck", "edgenext_x_small", 88.7, 94.7, 57.9, 79.8),
    Row("bnneck", "edgenext_small", 91.3, 96.1, 63.2, 83.2),
    Row("bnneck", "edgenext_base", 92.4, 96.8, 68.6, 86.6),
    Row("bnneck", "repvit_m0_9", 92.8, 96.9, 68.4, 86.5),
    Row("bnneck", "repvit_m1_0", 93.1, 96.6, 69.5, 87.2),
    Row("bnneck", "repvit_m1_5", 92.8, 96.6, 69.5, 87.5),
    Row("bnneck", "fastvit_s12", 91.2, 96.4, 59.0, 81.4),
    Row("bnneck", "fastvit_sa12", 90.9, 95.8, 59.0, 81.6),
    Row("bnneck", "fastvit_sa24", 92.9, 96.9, 69.6, 87.6),
    Row("bnneck", "resnet18", 89.3, 95.6, 55.6, 79.6),
    Row("bnneck", "resnet50", 92.8, 96.8, 67.7, 86.4),
    Row("bnneck", "resnet101", 94.0, 97.3, 73.2, 88.8),
    Row("bnneck", "resnet152", 94.2, 97.1, 74.5, 89.3),
    Row("bnneck", "resnet18_ibn", 90.0, 96.0, 56.1, 79.5),
    Row("bnneck", "resnet50_ibn", 93.7, 96.9, 72.3, 88.5),
    Row("bnneck", "resnet101_ibn", 94.3, 97.3, 75.8, 89.8),
    Row("bnneck", "resnet152_ibn", 94.6, 97.6, 76.7, 90.3),
    Row("bnneck", "convnext_tiny", 92.0, 96.9, 68.9, 87.3),
    Row("bnneck", "convnext_small", 92.9, 96.8, 69.9, 88.0),
    Row("bnneck", "convnext_base", 93.4, 96.9, 72.7, 89.0),
    Row("bnneck", "volo_d1", 93.0, 96.9, 73.9, 88.7),
    Row("bnneck", "volo_d2", 92.1, 96.4, 70.9, 87.5),
    Row("bnneck", "volo_d3", 90.5, 95.7, 62.8, 83.0),
    Row("bnneck", "vit_tiny", 91.4, 96.3, 65.0, 84.6),
    Row("bnneck", "vit_small", 92.8, 96.5, 70.3, 86.9),
    Row("bnneck", "vit_base", 93.1, 96.9, 72.6, 88.5),
    Row("bnneck", "swin_tiny", 92.5, 97.0, 71.1, 87.6),
    Row("bnneck", "swin_small", 93.6, 96.8, 76.0, 89.6),
    Row("bnneck", "swin_base", 94.0, 96.9, 76.7, 90.3),
)
_METHODS: dict[str, Finetuning] = {"bnneck": Bnneck(), "mgn": Mgn()}


@cache
def need(method_name: str, name: str) -> Need:
    """What a fine-tuning needs on one device, estimated; the same for all data sets."""
    settings = replace(_METHODS[method_name], backbone=name)
    body = backbone(name, image_size=settings.image_size, platform="gpu")
    network = network_of(settings, body, _CLASSES)
    method = FinetuningMethod(settings, network, body.shapes(), np.arange(_CLASSES))
    state = jax.eval_shape(method.init, jax.random.key(0), method.start)
    images = jax.ShapeDtypeStruct((_IMAGES, *settings.image_size, 3), jnp.dtype(settings.precision))
    labels_B = jax.ShapeDtypeStruct((_IMAGES,), jnp.int32)

    def losses(params: Any, batch_stats: Any, images: Any, labels_B: Any, key: Any) -> dict[str, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        return network.losses(variables, images, labels_B, memory_CxD=(), key=key, frozen=False).values

    held = held_bytes(losses, state.params, state.batch_stats, images, labels_B, jax.random.key(0))
    return Need(bytes_of(state) + bytes_of(state.params), held // _IMAGES)  # the latter as large as its gradients


def main(memory: bool = False) -> None:
    """Print a Markdown table for each data set.

    Args:
        memory: Also estimate the memory of each training.
    """
    gigabytes = ["GB, estimated"] if memory else []
    head = ["method", "backbone", "images", "in a batch", *gigabytes, "mAP, to be reached", "rank 1, to be reached"]
    for data_set in DATA_SETS:
        print(f"{data_set}\n")
        print(f"| {' | '.join(head)} | command |")
        print("|" + "---|" * (len(head) + 1))
        for row in ROWS:
            settings = published(_METHODS[row.method], row.backbone, data_set)
            is_market = data_set == "market1501"
            scores = (row.market_map, row.market_rank_1) if is_market else (row.msmt_map, row.msmt_rank_1)
            size = "x".join(map(str, settings.image_size))
            cells = [row.method, row.backbone, size, str(settings.batch)]
            if memory:
                needed = need(row.method, row.backbone)
                cells.append(f"{(needed.fixed + settings.batch * needed.image) / 1e9:.1f}")
            line = f"cion finetune {row.method} {row.backbone}.safetensors {data_set} OUT --like {data_set}"
            print(f"| {' | '.join([*cells, *map(str, scores), f'`{line}`'])} |", flush=True)
        print()


if __name__ == "__main__":
    command(main)
