"""A harder drawn world: more people who look alike, and a tracker that errs twice as often.

cion data synth OUT --settings experiments/crowded_world.py
"""

from cion_jax.config import World

settings = World(
    identities=400,
    videos=60,
    cameras=10,
    look_alikes=0.4,
    switches=0.26,
    fragments=0.56,
    bad_boxes=0.2,
    background=0.16,
    test_identities=150,
    distractors=1000,
)
