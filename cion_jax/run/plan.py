"""What a pre-training will do, settled before anything is computed: who is who, which K when, and whether it can be."""

from collections.abc import Collection, Iterator
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cion_jax.config import Pretraining
from cion_jax.data.files import Folder
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.data.sampler import PKSampler, WindowedShuffle
from cion_jax.data.shards import chunk_starts
from cion_jax.denoise.denoise import check_settings
from cion_jax.errors import UserError
from cion_jax.models.complexity import multiply_adds
from cion_jax.models.zoo import Backbone, backbone
from cion_jax.pretrain.state import mesh_of
from cion_jax.run.evaluation import check_evaluation

#: Shares of the epochs after which `auto` makes labels anew.
RELABEL_AT = (0.30, 0.48, 0.65)


def instances_at(settings: Pretraining, epoch: int) -> int:
    """K in an epoch."""
    if settings.level == "instance":
        return 1
    return [count for begin, count in zip(settings.stages, settings.instances, strict=True) if begin <= epoch][-1]


def relabel_epochs(settings: Pretraining, records: Records) -> tuple[int, ...]:
    """The epochs at which labels are made anew, as the settings name them or as `auto` finds them for the records."""
    if settings.relabel != "auto":
        return settings.relabel
    if settings.level != "identity" or settings.labels is not None or _has_identities(records):
        return ()
    epochs = {max(1, round(share * settings.epochs)) for share in RELABEL_AT}
    return tuple(sorted(epoch for epoch in epochs if epoch < settings.epochs))


def _has_identities(records: Records) -> bool:
    return bool(records.index["identity"].max(initial=-1) >= 0)


def epoch_batches(settings: Pretraining, order: PKSampler) -> int:
    """Batches in an epoch: as many as the settings ask for, or else one pass of the order."""
    return settings.epoch_steps or order.batches


def segments(settings: Pretraining, first: int, cuts: Collection[int]) -> Iterator[range]:
    """The epochs from `first` on, in runs of one K, cut where labels change."""
    begin = first
    for epoch in range(first + 1, settings.epochs + 1):
        if epoch in {settings.epochs, *cuts} or instances_at(settings, epoch) != instances_at(settings, begin):
            yield range(begin, epoch)
            begin = epoch


def sampler_of(settings: Pretraining, records: Records, labels: np.ndarray, instances: int) -> PKSampler:
    """The order of batches with K instances."""
    stream = WindowedShuffle(_pieces(records, labels), settings.stream) if settings.stream else None
    return PKSampler(labels, settings.batch // instances, instances, settings.seed, stream)


def _pieces(records: Records, labels: np.ndarray) -> np.ndarray:
    """Pieces of the shards for a stream; people whose images are scattered over them are refused."""
    known = labels[labels >= 0]
    people, count = np.unique(known[np.diff(known, prepend=-1) != 0], return_counts=True)
    if scattered := int((count > 1).sum()):
        raise UserError(
            f"{records.folder}: the images of {scattered:,} of {len(people):,} identities do not stand together, as a "
            "stream needs them; `cion data repack --order grouped --labels LABELS` puts them together"
        )
    return chunk_starts(records.index, labels)


def labels_of(settings: Pretraining, records: Records) -> np.ndarray:
    """Who counts as the same person at the level that the settings ask for; -1 is left out."""
    if settings.labels is not None and settings.level != "identity":
        raise UserError(f"labels are for the identity level, not for {settings.level}; leave out one of the two")
    if settings.level == "instance":
        return np.arange(len(records))
    if settings.labels is not None:
        return read_labelling(settings.labels, records.card.fingerprint)
    if settings.level == "tracklet" or relabel_epochs(settings, records):
        return np.array(records.index["tracklet"], np.int64)
    if not _has_identities(records):
        raise UserError(
            f"{records.folder}: nobody in split {records.split} has an identity, and {settings.epochs} epochs with "
            f"relabel {settings.relabel} make no labels; give a labelling with --labels, or --relabel auto with at "
            "least 2 epochs, or choose --level tracklet"
        )
    return np.array(records.index["identity"], np.int64)


def model_of(settings: Pretraining) -> Backbone:
    """The backbone, with tables of positions for the global crops."""
    options = {"remat": True} if settings.remat else {}
    return backbone(settings.backbone, image_size=settings.crops.global_size, **options)


def prepared(settings: Pretraining, data: Folder) -> tuple[Mesh, Records, Backbone]:
    """Devices, data and backbone of a run; what cannot work is refused before anything is computed."""
    mesh = mesh_of(jax.device_count(), settings.model_axis)
    check(settings, jax.device_count())
    records, model = Records(data), model_of(settings)
    _check_stream(settings, relabel_epochs(settings, records))
    check_sizes(settings, model)
    check_evaluation(settings)
    return mesh, records, model


def check(settings: Pretraining, devices: int) -> None:
    """Refuse what cannot work, by name, before anything is computed."""
    if len(settings.stages) != len(settings.instances) or not settings.stages or settings.stages[0] != 0:
        raise UserError(
            f"stages {settings.stages} and instances {settings.instances} must pair up, the first at epoch 0"
        )
    if list(settings.stages) != sorted(set(settings.stages)) or min(settings.instances) < 1:
        raise UserError(f"stages {settings.stages} must rise, and instances {settings.instances} be positive")
    if settings.epochs < 1 or settings.accumulate < 1:
        raise UserError(f"epochs ({settings.epochs}) and accumulate ({settings.accumulate}) must be at least 1")
    if settings.epoch_steps < 0:
        raise UserError(f"epoch_steps is {settings.epoch_steps}; give a number of steps, or 0 for a pass over the data")
    if settings.relabel != "auto":
        _check_relabel(settings, settings.relabel)
    check_settings(settings.denoising)
    shares = devices * settings.accumulate
    for instances in sorted({instances_at(settings, epoch) for epoch in range(settings.epochs)}):
        if settings.batch % (instances * shares) or settings.batch < 1:
            parts = f"{devices} devices x {settings.accumulate} parts x {instances} instances"
            fitting = -(-settings.batch // (instances * shares)) * instances * shares
            raise UserError(f"a batch of {settings.batch} images does not split into {parts}; {fitting} would")
    if settings.head.prototypes % settings.model_axis:
        raise UserError(f"{settings.head.prototypes} prototypes cannot be shared by {settings.model_axis} devices")


def _check_relabel(settings: Pretraining, epochs: tuple[int, ...]) -> None:
    if epochs and settings.level != "identity":
        raise UserError(f"relabel is for the identity level, not for {settings.level}; leave out one of the two")
    if not all(a < b for a, b in pairwise((0, *epochs, settings.epochs))):
        raise UserError(f"relabel {epochs} must rise, and lie between epoch 1 and {settings.epochs - 1}")


def _check_stream(settings: Pretraining, anew: tuple[int, ...]) -> None:
    """Refuse a stream of people whom labels that are made anew would scatter."""
    if settings.stream < 0:
        raise UserError(f"stream is {settings.stream}; it must be a number of batches, or 0")
    if settings.stream and anew:
        raise UserError(
            f"stream is {settings.stream}, but relabel makes new labels at epochs {anew}, which scatters people; "
            "choose --stream 0, or give labels that stay with --labels, or choose --level tracklet"
        )


def check_sizes(settings: Pretraining, model: Backbone) -> None:
    """Refuse sizes of crops that the backbone cannot take."""
    model.width(settings.crops.global_size)
    if settings.crops.local_crops:
        model.width(settings.crops.local_size)


def flops(settings: Pretraining, model: Backbone) -> float:
    """Floating-point operations that the networks need for a batch: forward for the teacher, three times that to learn.

    Head and loss are counted, augmentation and recomputation are not.
    """

    head, crops = settings.head, settings.crops

    def forward(size: tuple[int, int]) -> int:
        image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        traced, out = jax.make_jaxpr(model.apply, return_shape=True)(model.shapes(), image)
        top = head.hidden * (out.shape[-1] + head.hidden + head.bottleneck) + head.bottleneck * head.prototypes
        return multiply_adds(traced.jaxpr) + top

    globals_ = 2 * forward(crops.global_size)
    locals_ = crops.local_crops * forward(crops.local_size) if crops.local_crops else 0
    return 2.0 * settings.batch * (4 * globals_ + 3 * locals_)
