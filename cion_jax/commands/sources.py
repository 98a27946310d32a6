"""What a command is given: weights, as the folder of a run or as a file; and what its processes have in common."""

from pathlib import Path
from typing import TYPE_CHECKING

from cion_jax.errors import UserError

if TYPE_CHECKING:
    from cion_jax.data.files import Folder
    from cion_jax.hosts import Facts
    from cion_jax.weights.file import Weights


def weights_of(source: Path) -> "Weights":
    """Load the teacher of a run of `cion pretrain`, the best weights of a run of fine-tuning, or a file of weights."""
    from cion_jax.weights.file import load

    return load(file_of(source))


def file_of(source: Path) -> Path:
    """The file of weights that a command is given, or that a run has."""
    from cion_jax.run.run_dir import WEIGHTS

    if not source.is_dir():
        return source
    there = [source / name for name in WEIGHTS if (source / name).exists()]
    if not there:
        names = ", ".join(WEIGHTS)
        raise UserError(f"{source}: not a run (none of {names} is there); name one of `cion pretrain`, or weights")
    return there[0]


def absolute(data: "Folder") -> str:
    """Where data are, wherever the next command is called: an absolute path, or the URL."""
    from cion_jax.data.files import is_remote

    return str(data) if is_remote(data) else str(Path(data).absolute())


def facts_of(command: str, data: "Folder | None", *files: Path, **options: object) -> "Facts":
    """What all processes of a command must have in common; files that are not there are refused.

    Args:
        command: Its name.
        data: A folder, whose fingerprints are taken if it is a dataset.
        files: What else is read, of which digests are taken.
        options: What it was asked for.
    """
    from cion_jax.data.dataset import is_dataset, read_card
    from cion_jax.run.agreement import digest_of

    facts = {"command": command} | {name: str(value) for name, value in options.items()}
    if data is not None and is_dataset(data):
        facts |= {f"the fingerprint of {name}": split.fingerprint[:12] for name, split in read_card(data)[0].items()}
    return facts | {f"the digest of {path.name}": digest_of(path) for path in files}
