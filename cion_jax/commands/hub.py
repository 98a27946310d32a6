"""`cion card`, `cion push` and `cion pull`: what weights say of themselves, and the way to a model hub and back."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cion_jax.commands.sources import file_of
from cion_jax.errors import UserError

_Source = Annotated[Positional[Path], arg(metavar="RUN|WEIGHTS")]
_Place = Annotated[Positional[str], arg(metavar="hf://OWNER/NAME")]


def card(
    weights: _Source,
    out: Annotated[Positional[Path | None], arg(metavar="OUT")] = None,
    licence: str | None = None,
) -> None:
    """Print what weights say of themselves as a model card, or write it, for you to complete.

    The card has the size of images, the scale of pixels, the order of colours, the width of features, the fingerprint
    of the training data, the licence, and the fields that the Hugging Face hub reads.

    Args:
        weights: A run, or a file that a training or `cion import` wrote.
        out: The file to write, .md; without it the card is printed.
        licence: Also write this licence into the weights, by the name that SPDX and the hub give it: apache-2.0, other.
    """
    from cion_jax.atomic import write_atomically

    if out is not None and out.suffix != ".md":
        raise UserError(f"{out}: a model card is Markdown; give OUT the ending .md")
    path = file_of(weights)
    text = _page(path, licence)
    if out is None:
        print(text, end="")
        return
    write_atomically(out, lambda aside: aside.write_text(text))
    print(f"{out}: the card of {path}; complete what stands in italics")


def push(
    weights: _Source,
    place: _Place,
    card: Path | None = None,
    licence: str | None = None,
    public: bool = False,
) -> None:
    """Send weights and their model card to a repository on the Hugging Face hub.

    The repository is made if it is not there, for you alone unless you say --public. It gets model.safetensors and, as
    README.md, the card that `cion card` prints, unless it has one already. Needs pip install 'cion-jax[hub]' and
    `hf auth login`. HF_ENDPOINT names another hub.

    Args:
        weights: A run, or a file that a training or `cion import` wrote.
        place: The repository.
        card: A card of your own, which replaces the one that is there.
        licence: Also write this licence into the weights, by the name that SPDX and the hub give it: apache-2.0, other.
        public: Whether a new repository is for everybody.
    """
    from cion_jax.untrusted import read_text
    from cion_jax.weights.hub import CARD, WEIGHTS, parse
    from cion_jax.weights.hub import push as send

    parse(place)
    path = file_of(weights)
    text = _page(path, licence, place) if card is None else read_text(card, "name the card to send")
    kept = frozenset([CARD] if card is None else [])
    files = {WEIGHTS: path.read_bytes(), CARD: text.encode()}
    print(f"{place}: {send(place, files, kept=kept, public=public)}")


def pull(place: _Place, out: Annotated[Positional[Path], arg(metavar="OUT")]) -> None:
    """Fetch weights that `cion push` sent to the Hugging Face hub.

    What comes is read as any file of weights is: nothing in it is run, and its digest is compared. Needs
    pip install 'cion-jax[hub]'. HF_ENDPOINT names another hub.

    Args:
        place: The repository, hf://OWNER/NAME, or one of its revisions, hf://OWNER/NAME@REVISION.
        out: The file to write, .safetensors.
    """
    from cion_jax.weights.file import load
    from cion_jax.weights.hub import pull as fetch

    if out.suffix != ".safetensors":
        raise UserError(f"{out}: our own weights are safetensors; give OUT that ending")
    fetch(place, out)
    weights = load(out)
    height, width = weights.network.image_size
    print(f"{out}: {weights.network.name}, {height}x{width}, licence {weights.origin.get('licence', 'not stated')}")


def _page(path: Path, licence: str | None, place: str = "hf://OWNER/NAME") -> str:
    """The model card of a file of weights, which first gets its licence where one is given."""
    from cion_jax.export.model_card import model_card
    from cion_jax.export.program import card as program_card
    from cion_jax.untrusted import file_digest
    from cion_jax.weights.card import card as own_card
    from cion_jax.weights.card import checked
    from cion_jax.weights.file import load, save

    weights = load(path)
    if licence is not None:
        weights = replace(weights, origin={**weights.origin, "licence": checked("licence", licence)})
        save(path, weights)
    noted = program_card(weights.network, file_digest(path, "name a file of weights"))
    noted["neck"] = own_card(weights.network, {})["neck"]
    return model_card(noted, weights.origin, place)
