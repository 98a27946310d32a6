"""`cion search`: who is on an image? Asked of an index."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from etils import epath
from rich.table import Column, Table
from rich.text import Text
from tyro.conf import Positional, arg

from cion_jax.errors import UserError
from cion_jax.terminal import Console

if TYPE_CHECKING:
    from cion_jax.gallery.answers import Answers


def search(
    index: Annotated[Positional[Path], arg(metavar="INDEX")],
    images: Annotated[Positional[tuple[epath.Path, ...]], arg(metavar="IMAGES...")],
    split: str = "query",
    top: int = 10,
    by: Literal["image", "tracklet", "person"] | None = None,
    threshold: float | None = None,
    false_match_rate: float = 0.001,
    exact: bool = False,
    weights: Path | None = None,
    json_: Annotated[bool, arg(name="json")] = False,
    page: Path | None = None,
) -> None:
    """Search an index for the people on images.

    For each image the nearest answers are printed, with their distance (1 - cosine, of a tracklet or person that of its
    nearest image) and whether that is a match: nearer than a threshold. By default the threshold is the largest that
    keeps a false match rate among people who are known to be two, since a frame of one video shows both; the rate is
    printed with its interval. People of one video look more alike than strangers do, so that fewer of those match.

    Args:
        index: What `cion index` wrote.
        images: Image files, folders of them, and datasets.
        split: Which split of datasets.
        top: Answers to each image.
        by: Whether an answer is an image, a tracklet, or a person; without it the last of these that the index knows.
        threshold: Distance below which an answer is a match, instead of the false match rate.
        false_match_rate: Share of comparisons with somebody else that may be below the threshold.
        exact: Compare with all images, also where the index has a graph for approximate search.
        weights: The run or the weights that the index was made with, if they are not any more where they were.
        json_: Print JSON.
        page: Also write the ranked lists with pictures, as this HTML file. It shows people: keep it as private as they
            are.
    """
    from cion_jax.commands.sources import file_of
    from cion_jax.gallery.answers import ask
    from cion_jax.gallery.images import embed_for, open_all
    from cion_jax.gallery.store import read
    from cion_jax.terminal import progress_bar

    if page is not None and not page.absolute().parent.is_dir():
        raise UserError(f"{page}: there is no folder {page.parent}; make it first")
    gallery = read(index)
    asked, names = open_all(images, split)
    queries = embed_for(gallery, asked, None if weights is None else file_of(weights))
    with progress_bar("searching", len(names)) as progress:
        answers = ask(
            gallery,
            queries,
            names,
            top=top,
            by=by,
            threshold=threshold,
            false_match_rate=false_match_rate,
            exact=exact,
            progress=progress,
        )
    for line in answers.remarks():
        print(f"cion: {line}", file=sys.stderr)
    print(json.dumps(answers.as_dict(), indent=1)) if json_ else _show(answers)
    if page is not None:
        from cion_jax.atomic import write_atomically
        from cion_jax.report.found import found

        html = found(answers, asked)
        write_atomically(page, lambda aside: aside.write_text(html))
        print(f"{page}: written", file=sys.stderr if json_ else sys.stdout)


#: Columns of what is known of an answer, where any answer has it.
_COLUMNS = ("person", "tracklet", "video", "frame", "camera", "called", "image")


def _show(answers: "Answers") -> None:
    """Print a table of the answers to each query, and what a match is."""
    listed = [[_with_names(each) for each in answers.of(query)] for query in range(len(answers.names))]
    columns = [name for name in _COLUMNS if any(name in each for own in listed for each in own)]
    for name, own in zip(answers.names, listed, strict=True):
        numbers = [Column(title, justify="right") for title in ("rank", "distance")]
        table = Table(*numbers, "match", *columns, title=Text(name), title_justify="left")
        for each in own:
            match = {True: "yes", False: "no", None: ""}[each["match"]]
            known = [str(each.get(column, "")) for column in columns]
            table.add_row(str(each["rank"]), f"{each['distance']:.3f}", match, *map(Text, known))
        Console().print(table)
    print(answers.about_threshold())


def _with_names(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer, and in one text what the source calls its video and its tracklet."""
    names = [answer[name] for name in ("video_name", "tracklet_name") if name in answer]
    return answer | ({"called": " ".join(names)} if names else {})
