"""`cion people`: from videos to a page of the people in them."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cion_jax.config import Tracking
from cion_jax.errors import UserError


def people(
    places: Annotated[Positional[tuple[Path, ...]], arg(metavar="VIDEO... OUT")],
    tracking: Tracking = Tracking(),
    weights: Path | None = None,
    no_train: bool = False,
    epochs: int | None = None,
) -> int:
    """Find the people in videos, and who is who: with nothing but videos, in one command.

    VIDEO... are video files, or one folder of them; OUT is the folder to write. People are found and followed, a small
    network learns from their tracklets alone and finds out on the way which show the same person, and OUT/people.html
    gets a row for each person: where and when seen, the best pictures first, the doubtful ones last. OUT/index is for
    `cion search`. Each step is a command of its own, which is printed before it runs; the same command goes on with a
    killed one, and skips what is done. Needs `pip install 'cion-jax[video]'`.

    Where pictures do not tell enough about who is who, tracklets are only cleaned, and a line says so. The page shows
    people: keep it as private as they are.

    Args:
        places: Videos, and at last the folder to write.
        tracking: How people are found and followed.
        weights: A run or weights to begin with, instead of fresh ones.
        no_train: Do not train: take these weights as they are.
        epochs: How long to train; by default as long as the device and the amount of video call for.
    """
    from cion_jax.commands.finetune import backbone_of
    from cion_jax.people import Wanted, check, do_steps, on_cpu, run_command, steps

    if len(places) < 2:
        raise UserError("name one video at least, and the folder to write: cion people VIDEO... OUT")
    *videos, out = places
    backbone = None if weights is None else backbone_of(weights)
    wanted = Wanted(tuple(videos), out, tracking, weights, backbone, not no_train, epochs)
    check(wanted)
    out.mkdir(parents=True, exist_ok=True)
    if code := do_steps(out, steps(wanted, on_cpu), run_command):
        return code
    print(f"{out / 'people.html'}: who is in the videos, to be opened in a browser; keep it as private as they are")
    print(f"cion search {out / 'index'} IMAGE    # where is this person?")
    return 0
