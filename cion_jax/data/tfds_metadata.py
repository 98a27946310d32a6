"""Metadata with which `tfds.builder_from_directory(folder)` opens a dataset. Works without TensorFlow."""

import os
from pathlib import Path

import numpy as np

from cion_jax.data.dataset import NAME, Split


def write_tfds_metadata(folder: Path, splits: dict[str, Split]) -> None:
    """Write dataset_info.json and features.json into a folder with a file named like a shard of each split."""
    os.environ.setdefault("TFDS_DISABLE_TELEMETRY", "1")
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "source": tfds.features.Text(),
        **{
            name: tfds.features.Scalar(np.int64)
            for name in ("height", "width", "video", "tracklet", "frame", "camera", "identity")
        },
    }
    template = tfds.core.ShardedFileTemplate(folder, dataset_name=NAME, filetype_suffix="tfrecord")
    infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=list(split.shards),
            num_bytes=split.bytes,
            filename_template=template.replace(split=name),
        )
        for name, split in splits.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        filename_template=template,
        check_data=False,
        description="Person crops from video tracklets, written by cion_jax.",
    )
