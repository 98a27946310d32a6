"""`cion finetune` and `cion adapt`: from a pre-trained backbone to a network that ranks."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from etils import epath
from tyro.conf import Positional, arg

from cion_jax.commands.training import OUT, Mode, run_folder, run_training
from cion_jax.config import Bnneck, ClusterContrast, Finetuning, Hosts, Mgn
from cion_jax.errors import UserError

_START = "A run, weights, or the name of a backbone, which then begins with fresh weights."
Start = Annotated[Positional[Path], arg(metavar="RUN|WEIGHTS", help=_START)]
Data = Annotated[Positional[epath.Path], arg(metavar="DATA", help="A dataset folder, or its URL in a store.")]
Out = Annotated[Positional[Path | None], arg(metavar="OUT", help=OUT)]
DataSet = Literal["market1501", "msmt17"] | None


def bnneck(
    weights: Start,
    data: Data,
    out: Out = None,
    like: DataSet = None,
    settings: Bnneck = Bnneck(),
    hosts: Hosts = Hosts(),
    mode: Mode = Mode(),
) -> int:
    """Fine-tune any backbone with labels: a neck of batch normalisation, cross entropy and the hardest triplets.

    Learns from the identities of the train split. The same command goes on with a run that was stopped or killed.
    OUT gets finetuned.safetensors after each epoch, and best.safetensors, the weights of the epoch in which those whom
    --validation sets aside were ranked best; `cion embed`, `evaluate`, `report` and `export` take OUT.

    Args:
        weights: What the network begins with.
        data: What it learns from.
        out: Where it is kept: weights, checkpoints, metrics.jsonl.
        like: Begin with the settings that were published for this data set and the backbone; options override them.
        settings: Settings of the method.
        hosts: How processes find each other.
        mode: Whether to train, or only to tell what that would be.
    """
    return _run("bnneck", settings, weights, data, out, hosts, mode)


def mgn(
    weights: Start,
    data: Data,
    out: Out = None,
    like: DataSet = None,
    settings: Mgn = Mgn(),
    hosts: Hosts = Hosts(),
    mode: Mode = Mode(),
) -> int:
    """Fine-tune a ResNet with labels: three branches, and heads for parts of the body. Slower.

    Learns from the identities of the train split. The same command goes on with a run that was stopped or killed.
    OUT gets finetuned.safetensors after each epoch, and best.safetensors, the weights of the epoch in which those whom
    --validation sets aside were ranked best; `cion embed`, `evaluate`, `report` and `export` take OUT.

    Args:
        weights: What the network begins with.
        data: What it learns from.
        out: Where it is kept: weights, checkpoints, metrics.jsonl.
        like: Begin with the settings that were published for this data set; options override them.
        settings: Settings of the method.
        hosts: How processes find each other.
        mode: Whether to train, or only to tell what that would be.
    """
    return _run("mgn", settings, weights, data, out, hosts, mode)


def adapt(
    weights: Start,
    data: Data,
    out: Out = None,
    like: DataSet = None,
    settings: ClusterContrast = ClusterContrast(),
    hosts: Hosts = Hosts(),
    mode: Mode = Mode(),
) -> int:
    """Adapt a ResNet to images without labels: clusters of its features, anew in each epoch, are the people.

    From pre-trained weights this learns without any labels; from weights that were fine-tuned on other data
    (`cion finetune bnneck`) it brings them over to this data. Needs scikit-learn for DBSCAN:
    pip install 'cion-jax[adapt]'. The same command goes on with a run that was stopped or killed.

    Args:
        weights: What the network begins with.
        data: What it learns from: the train split, without its identities.
        out: Where it is kept: weights, checkpoints, metrics.jsonl.
        like: Begin with the settings that were published for this data set; options override them.
        settings: Settings of the method.
        hosts: How processes find each other.
        mode: Whether to train, or only to tell what that would be.
    """
    return _run("adapt", settings, weights, data, out, hosts, mode)


def backbone_of(weights: Path) -> str:
    """The backbone that a command begins with. JAX stays asleep: processes have not found each other yet."""
    if _is_name(weights):
        return str(weights)
    from cion_jax.commands.sources import file_of
    from cion_jax.weights.foreign import read_metadata

    name = read_metadata(file_of(weights)).get("backbone")
    if name is None:
        raise UserError(f"{weights}: does not say what it is weights of; bring it in with `cion import`")
    return name


def _is_name(weights: Path) -> bool:
    """Whether it is the name of a backbone; one that is nearly that, and no file, is answered with near ones."""
    from cion_jax.models.zoo import check_name

    if weights.exists() or weights.suffix or len(weights.parts) > 1:
        return False
    check_name(str(weights))
    return True


def _run(
    name: str, settings: Finetuning, weights: Path, data: epath.Path, out: Path | None, hosts: Hosts, mode: Mode
) -> int:
    from cion_jax.commands.sources import file_of
    from cion_jax.run.finetuning import facts, finetuning

    source = None if _is_name(weights) else file_of(weights)
    settings = replace(settings, weights=source, backbone=backbone_of(weights))
    out, settings = run_folder(out, name, settings, data)
    done = f"{out}: {settings.backbone}, for `cion embed`, `cion evaluate` and `cion export`"
    if settings.select == "test":
        done += f"; best.safetensors is the epoch that {settings.evaluate} likes best, so its score there flatters it"
    return run_training(
        lambda devices: finetuning(settings, data, devices),
        lambda: facts(settings, data),
        data,
        out,
        hosts=hosts,
        mode=mode,
        done=done,
    )
