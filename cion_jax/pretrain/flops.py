"""What a step of pre-training costs by its formulas, whatever a compiler makes of it."""

import jax
import jax.numpy as jnp

from cion_jax.config import Pretraining
from cion_jax.models.complexity import countable, multiply_adds
from cion_jax.models.zoo import Backbone


def step_flops(settings: Pretraining, model: Backbone) -> float:
    """Floating-point operations that the networks need for a batch.

    The teacher's forward counts once, the student's three times: forward, and a backward of twice its cost. Head and
    loss are counted; augmentation and what is computed twice are not.
    """
    head, crops = settings.head, settings.crops

    def forward(size: tuple[int, int]) -> int:
        image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        traced, out = jax.make_jaxpr(countable(model).apply, return_shape=True)(model.shapes(), image)
        projection = head.hidden * (out.shape[-1] + head.hidden + head.bottleneck)
        return multiply_adds(traced.jaxpr) + projection + head.bottleneck * head.prototypes

    global_views = 2 * forward(crops.global_size)
    local_views = crops.local_crops * forward(crops.local_size) if crops.local_crops else 0
    student = 3 * (global_views + local_views)
    return 2.0 * settings.batch * (global_views + student)
