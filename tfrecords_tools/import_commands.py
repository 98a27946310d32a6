"""The commands that bring data in: importers of layouts and of videos, and the shards that others wrote."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from etils import epath
from tyro.conf import Positional, arg

from cion_jax.config import Tracking, Writing
from cion_jax.data.dataset import Split
from cion_jax.data.files import Folder as Place
from cion_jax.data.files import located
from cion_jax.data.source import Source
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from tfrecords_tools.tracklet_names import names_file, write_names

Folder = Annotated[Positional[Path], arg(metavar="FOLDER")]
Out = Annotated[Positional[Path], arg(metavar="OUT")]
Anywhere = Annotated[Positional[epath.Path], arg(metavar="OUT")]


def adopt(
    folder: Folder,
    shards: tuple[str, ...] = ("train=*.tfrec*",),
    image_feature: str = "image",
    identity_feature: str = "",
    camera_feature: str = "",
    video_feature: str = "",
    tracklet_feature: str = "",
    frame_feature: str = "",
    source_feature: str = "",
    workers: int = 0,
) -> None:
    """Take TFRecord shards that others wrote as they are: an index and a card are written beside them.

    Records are `tf.train.Example`, each with one JPEG or PNG image. Every checksum is checked and every label read;
    images are decoded by `cion data check FOLDER`. Shards that are compressed are refused. The same command finishes a
    killed run. docs/data.md has more.

    Args:
        folder: The folder that has the shards.
        shards: The files of each split, as SPLIT=PATTERN: train=train-* query=query-*
        image_feature: What the records call the encoded image, such as image/encoded.
        identity_feature: What they call the number of the person (the label). Without a name it is unknown, and so on.
        camera_feature: What they call the number of the camera.
        video_feature: What they call the number of the video.
        tracklet_feature: What they call the number of the tracklet.
        frame_feature: What they call the number of the frame.
        source_feature: What they call the text that says where an image came from.
        workers: Processes; 0 is one for each core.
    """
    from tfrecords_tools.adopt import adopt as adopt_shards

    named = {
        "image": image_feature,
        "video": video_feature,
        "tracklet": tracklet_feature,
        "frame": frame_feature,
        "camera": camera_feature,
        "identity": identity_feature,
        "source": source_feature,
    }
    pairs = [shard.partition("=") for shard in shards]
    if wrong := [shard for shard, (_, _, pattern) in zip(shards, pairs, strict=True) if not pattern]:
        raise UserError(f"--shards {wrong[0]}: must be SPLIT=PATTERN, as train=*.tfrecord*")
    patterns = {split: pattern for split, _, pattern in pairs}
    announce(
        folder, adopt_shards(folder, patterns, {ours: theirs for ours, theirs in named.items() if theirs}, workers)
    )


def import_video(
    source: Annotated[Positional[epath.Path], arg(metavar="SOURCE")],
    out: Anywhere,
    tracking: Tracking = Tracking(),
    writing: Writing = Writing(),
) -> None:
    """Video files: people are found in them, followed and cut out.

    All become the split train. A video is a file, or a stretch of a long one; a tracklet is a person who is followed in
    it; frames are counted in the file, from 1. A file that cannot be read is named at the end, and the others go on.
    Beside the index stand each image's box in its frame and its score (cion-train.boxes.npy), and which file and track
    each tracklet is (cion-train.tracklets.csv). Needs `pip install 'cion-jax[video]'`.

    Args:
        source: A video, a folder with videos in it, a pattern such as 'films/*.mp4' or 'gs://BUCKET/films/*.mp4', or a
            .txt file with the path or URL of a video on each line.
        out: Folder to write, or its URL in a store; the same command finishes a killed run.
    """
    try:
        from tfrecords_tools.video.importing import import_videos
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; `pip install 'cion-jax[video]'`") from None
    announce(out, import_videos(located(source), located(out), tracking, writing))


def import_command(importer: Callable[..., dict[str, Source]]) -> Callable[..., None]:
    """An importer as a command: its own arguments, then where and how to write."""

    def command(source: Path, out: epath.Path, writing: Writing, **options: Any) -> None:
        sources = importer(source, **options)
        named = {split: getattr(found, "names", ()) for split, found in sources.items()}
        beside = {names_file(split): write_names(names) for split, names in named.items() if names}
        announce(out, write_dataset(located(out), sources, writing, beside))

    own = inspect.signature(importer, eval_str=True).parameters
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    option = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("source", place, annotation=Annotated[Positional[Path], arg(metavar="SOURCE")]),
        inspect.Parameter("out", place, annotation=Anywhere),
        *(parameter for name, parameter in own.items() if name != "source"),
        inspect.Parameter("writing", option, annotation=Writing, default=Writing()),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = (
        f"{inspect.getdoc(importer)}\n    out: Folder to write, or its URL; the same command finishes a killed run."
    )
    return command


def announce(out: Place, splits: dict[str, Split]) -> None:
    """Say what a dataset holds."""
    for name, split in splits.items():
        left_out = f", {split.left_out:,} damaged ones left out" if split.left_out else ""
        print(f"{out}: {name} has {split.images:,} images in {len(split.shards):,} shards{left_out}")
