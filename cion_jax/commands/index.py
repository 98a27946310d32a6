"""`cion index`, `cion enrol`, `cion forget`: a gallery that `cion search` asks, and who is in it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from etils import epath
from tyro.conf import Positional, arg

from cion_jax.errors import UserError

if TYPE_CHECKING:
    from cion_jax.gallery.store import Gallery

_Index = Annotated[Positional[Path], arg(metavar="INDEX")]


def index(
    features: Annotated[Positional[Path], arg(metavar="FEATURES")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    split: str | None = None,
    labels: Path | None = None,
    images: epath.Path | None = None,
    weights: Path | None = None,
    half: bool = False,
    approximate: bool = False,
) -> None:
    """Make an index of features, which `cion search` asks with images.

    FEATURES is a folder that `cion embed` wrote. OUT gets the features with what is known of each image: video,
    tracklet, frame, camera, and who it is. It also notes with which weights query images are embedded, and where the
    images are, which stay there. `cion search` compares a query with all images. For millions, --approximate adds a
    graph of neighbours, which is faster and misses some; its recall is printed. That needs
    `pip install 'cion-jax[search]'`.

    Args:
        features: What `cion embed` wrote.
        out: Folder to write.
        split: Which split of it; not needed where there is one only, or one that is called train.
        labels: Who is who, as `cion denoise` writes it; without it the identities of the dataset, if it has any.
        images: The dataset or folder with the images, if it is not any more where it was embedded.
        weights: The run or the weights that embedded them, if they are not any more where they were.
        half: Keep features in 16 bits.
        approximate: Also make a graph, for approximate search.
    """
    from cion_jax.commands.sources import absolute, file_of
    from cion_jax.gallery.build import from_features
    from cion_jax.gallery.store import made_from, read

    gallery = from_features(
        features,
        split or _only_split(features),
        labels,
        data="" if images is None else absolute(images),
        weights="" if weights is None else absolute(file_of(weights)),
        half=half,
    )
    if made_from(out) == gallery.made:
        there = read(out)
        if approximate <= (there.graph is not None):
            print(f"{out}: is there already, with {_contents(there)}")
            return
        gallery = there
    _write(out, gallery, approximate)


def enrol(
    index: _Index,
    name: Annotated[Positional[str], arg(metavar="NAME")],
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGES...")],
    weights: Path | None = None,
) -> None:
    """Add images of a person to an index.

    A command that is killed leaves the index as it was. Images stay where they are, and the index notes their paths.

    Args:
        index: What `cion index` wrote.
        name: Who they show: a new name, or that of a person who is in the index.
        images: Image files, and folders of them.
        weights: The run or the weights that the index was made with, if they are not any more where they were.
    """
    from cion_jax.commands.sources import file_of
    from cion_jax.data.dataset import is_dataset
    from cion_jax.gallery.change import enrolled
    from cion_jax.gallery.images import embed_for, open_all
    from cion_jax.gallery.store import read

    for place in images:
        if is_dataset(place):
            raise UserError(f"{place}: a dataset shows many people; `cion data export` makes folders of its images")
    gallery = read(index)
    asked, paths = open_all([place.absolute() for place in images])
    features = embed_for(gallery, asked, None if weights is None else file_of(weights))
    _write(index, enrolled(gallery, name, features, paths), gallery.graph is not None, gallery)


def forget(
    index: _Index,
    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None,
    tracklet: int | None = None,
) -> None:
    """Take a person or a tracklet out of an index: their features, and all that was noted of them.

    A command that is killed leaves the index as it was. The images themselves stay where they are.

    Args:
        index: What `cion index` wrote.
        name: The name or number of a person, as `cion search` tells it.
        tracklet: The number of a tracklet, instead.
    """
    from cion_jax.gallery.change import without
    from cion_jax.gallery.store import read

    gallery = read(index)
    _write(index, without(gallery, name, tracklet), gallery.graph is not None)


def _only_split(features: Path) -> str:
    """The split of a folder of features that has one, or else train."""
    from cion_jax.evaluate.feature_store import CARD, read_card

    splits = [*read_card(features / CARD)["splits"]]
    if len(splits) > 1 and "train" not in splits:
        raise UserError(f"{features}: has the splits {', '.join(splits)}; choose one with --split")
    return "train" if "train" in splits else splits[0]


def _write(out: Path, gallery: "Gallery", approximate: bool, before: "Gallery | None" = None) -> None:
    """Write a gallery, if it is asked for with a graph, and say what it holds."""
    from cion_jax.gallery.build import graph_of
    from cion_jax.gallery.store import save

    write_graph = None
    if approximate:
        graph, recall = graph_of(gallery, before)
        gallery = replace(gallery, recall=recall)
        write_graph = graph.save
    save(out, gallery, write_graph)
    print(f"{out}: {_contents(gallery)}")


def _contents(gallery: "Gallery") -> str:
    from cion_jax.gallery.rows import count_known

    images, tracklets, people = count_known(gallery.rows)
    parts = [f"{images:,} images", f"{tracklets:,} tracklets", f"{people:,} people"]
    if gallery.recall is not None:
        parts.append(f"a graph with recall@10 {gallery.recall:.3f}")
    return ", ".join(parts)
