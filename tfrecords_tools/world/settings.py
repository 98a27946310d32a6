"""Which settings of a world can be drawn."""

from cion_jax.config import World
from cion_jax.errors import UserError

_LEAST = {
    "identities": 1,
    "videos": 1,
    "cameras": 1,
    "seed": 0,
    "appearances": 1,
    "motion": 0,
    "length": 2,
    "test_identities": 0,
    "distractors": 0,
    "height": 16,
    "width": 8,
    "quality": 1,
}


def check(world: World) -> None:
    """Refuse settings that no world can satisfy."""
    for name, least in _LEAST.items():
        if getattr(world, name) < least:
            raise UserError(f"world.{name} is {getattr(world, name)}; set it to {least} or more")
    for name in ("look_alikes", "switches", "fragments", "bad_boxes", "background"):
        if not 0 <= getattr(world, name) <= 1:
            raise UserError(f"world.{name} is {getattr(world, name)}, but it is a share; set it between 0 and 1")
    if world.bad_boxes + world.background > 1:
        raise UserError(
            f"world.bad_boxes is {world.bad_boxes} and world.background {world.background}, more than all images; "
            "lower one of them"
        )
    if world.quality > 100:
        raise UserError(f"world.quality is {world.quality}; set it between 1 and 100")
    if world.test_identities and world.cameras < 2:
        raise UserError(
            f"world.cameras is {world.cameras}, but test people are seen by two; "
            "set it to 2 or more, or world.test_identities to 0"
        )
