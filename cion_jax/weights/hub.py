"""Weights on the Hugging Face hub: a repository has `model.safetensors`, our own file, and its model card."""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cion_jax.atomic import write_atomically
from cion_jax.errors import UserError
from cion_jax.weights.file import load

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The names that files have there.
WEIGHTS, CARD = "model.safetensors", "README.md"
_PLACE = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?", re.ASCII)


def push(place: str, files: Mapping[str, bytes], *, kept: frozenset[str] = frozenset(), public: bool = False) -> str:
    """Send files to a repository in one commit; it is made, private unless it shall be public, if it is not there.

    Args:
        place: The repository, as hf://OWNER/NAME.
        files: What goes there, by name.
        kept: Names of files that stay as they are where they are there already.
        public: Whether a new repository is for everybody.

    Returns:
        The address of the commit.
    """
    name, revision = parse(place)
    if revision is not None:
        raise UserError(f"{place}: a revision is made by pushing; leave @{revision} out")
    api = _api(place)
    from huggingface_hub import CommitOperationAdd

    try:
        api.create_repo(name, private=not public, exist_ok=True)
        there = {each for each in kept if api.file_exists(name, each)}
        sent = [CommitOperationAdd(each, content) for each, content in files.items() if each not in there]
        return str(api.create_commit(name, sent, commit_message="Weights of cion push").commit_url)
    except Exception as error:  # the package and the ones below it have errors of their own
        _refuse(place, error)


def pull(place: str, out: Path) -> None:
    """Fetch the weights of a repository, hf://OWNER/NAME or hf://OWNER/NAME@REVISION, and see that they are whole."""
    name, revision = parse(place)
    api = _api(place)
    try:
        fetched = Path(api.hf_hub_download(name, WEIGHTS, revision=revision))
    except Exception as error:
        _refuse(place, error)
    content = fetched.read_bytes()
    write_atomically(out, lambda aside: _write_checked(aside, content, place))


def parse(place: str) -> tuple[str, str | None]:
    """The repository and the revision that a place names."""
    found = _PLACE.fullmatch(place)
    if found is None:
        raise UserError(f"{place}: not a repository on the hub; name it as hf://OWNER/NAME")
    return found["name"], found["revision"]


def _write_checked(aside: Path, content: bytes, place: str) -> None:
    aside.write_bytes(content)
    try:
        load(aside)
    except UserError as error:
        reason = str(error).removeprefix(f"{aside}: ")
        raise UserError(f"{place}: its {WEIGHTS} is not a file of `cion push`: {reason}") from None


def _api(place: str) -> "HfApi":
    if find_spec("huggingface_hub") is None:
        raise UserError(f"{place}: huggingface_hub is not installed; pip install 'cion-jax[hub]'")
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _refuse(place: str, error: Exception) -> NoReturn:
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    remedy = "see the name, and whether you may go there (`hf auth login`, or HF_TOKEN)"
    if status is None or status >= 500:
        remedy = "see whether the hub can be reached, and repeat the command"
    raise UserError(f"{place}: the hub refuses ({why}); {remedy}") from None
