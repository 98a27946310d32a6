"""`cion demo`: the whole way from tracklets to scores."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cion_jax.errors import UserError


def demo(
    out: Annotated[Positional[Path], arg(metavar="OUT")] = Path("cion-demo"),
    seed: int = 0,
    seeds: int = 1,
    quick: bool = False,
    full: bool = False,
) -> None:
    """Go the whole way in a drawn world: from tracklets to a backbone, its scores and a page to look at.

    Draws walking people under cameras, with a tracker's mistakes, and writes them as records. Trains a small backbone
    four times, from the same weights and for as many steps: every image is a person of its own, every raw tracklet is
    one, the training itself finds out on the way who is who, and, as a ceiling, with the true labels. Then scores all
    of them, random weights and colour histograms on people who were never in training. At last it fine-tunes random
    weights and those of the levels with the labels of few people, and scores these. Takes 20 to 30 minutes on two cores
    and downloads nothing; the same command goes on with a killed demo.

    Args:
        out: Folder to write: worlds, runs, the best weights, and report.html.
        seed: Of the first world; everything drawn and the first weights follow from it.
        seeds: Worlds to draw, of consecutive seeds, for means, spreads and intervals.
        quick: So little of everything that the figures mean nothing: to see in a minute that it runs.
        full: Larger images, network and world, for an accelerator.
    """
    from cion_jax.atomic import write_atomically
    from cion_jax.commands.sources import weights_of
    from cion_jax.demo.page import page_of
    from cion_jax.demo.plan import DEFAULT, FULL, QUICK
    from cion_jax.demo.run_world import RUNS, WorldResults, run_world
    from cion_jax.demo.tables import in_markdown
    from cion_jax.weights.file import save

    if quick and full:
        raise UserError("--quick and --full: choose one of the two")
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: draw at least one world")
    plan = QUICK if quick else FULL if full else DEFAULT
    worlds: list[WorldResults] = []
    for number in range(seed, seed + seeds):
        if seeds > 1:
            print(f"=== world {number - seed + 1} of {seeds}, seed {number}", flush=True)
        worlds.append(run_world(out / f"seed-{number}", plan, number))
    print(in_markdown(plan, worlds))
    best = worlds[0].best()
    save(out / "best.safetensors", weights_of(out / f"seed-{seed}" / best))
    write_atomically(out / "report.html", lambda path: path.write_text(page_of(plan, worlds)))
    print(f"{out / 'best.safetensors'}: {RUNS[best]} of seed {seed}, for `cion export` and `cion embed`")
    print(f"{out / 'report.html'}: tables and pictures, to be opened in a browser")
