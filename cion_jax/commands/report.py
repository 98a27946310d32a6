"""`cion report`: from the folder of a run to a page."""

import sys
from pathlib import Path
from typing import Annotated

from etils import epath
from tyro.conf import Positional, arg

from cion_jax.errors import UserError


def report(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    data: Annotated[Positional[epath.Path | None], arg(metavar="DATA")] = None,
    out: Annotated[Positional[Path | None], arg(metavar="OUT")] = None,
    labels: Path | None = None,
) -> None:
    """Write a page about a run: one HTML file with its pictures in it, which needs no network.

    It shows settings and curves, who is who, scores, ranked lists, where the network is active in images, and a map of
    people; of an adaptation also its clusters, epoch by epoch. Without queries and a gallery it shows tracklets, those
    nearest to them, a map of them, and what training saw. Parts for which the run has no files (yet) say so. The page
    shows images of people: keep it as private as they are.

    Args:
        run: A folder that `cion pretrain`, `finetune` or `adapt` wrote, or is writing.
        data: The dataset folder, with query and gallery, on which the network is scored, or the place where the data
            that it was trained on are now; without it the run's own evaluation set, or else the data that it was
            trained on.
        labels: Who is who, as `cion denoise` wrote it; without it the newest labels that the run made itself, or else
            those that it was given.
        out: The HTML file to write; without it RUN/report.html.
    """
    from cion_jax.atomic import write_atomically
    from cion_jax.report.run import lost_data, read_run, report

    contents = read_run(run)
    path = run / "report.html" if out is None else out
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    if line := lost_data(contents, data):
        print(f"cion: {line}", file=sys.stderr)
    text = report(contents, data, labels)
    write_atomically(path, lambda aside: aside.write_text(text))
    print(f"{path}: written, {len(text) / 1e6:.1f} MB")
