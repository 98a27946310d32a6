"""TensorFlow and TFDS open our folders and see what we see. Skipped where TensorFlow is not installed."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.data.labels import FIELDS
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from tfrecords_tools.adopt import adopt

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytestmark = [
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs the tensorflow extra"),
    pytest.mark.filterwarnings("default"),  # those of TensorFlow itself are not ours to mend
]


def test_tf_data_reads_the_shards(dataset: Path) -> None:
    import tensorflow as tf

    records = Records(dataset)
    shards = [str(records.shard_path(shard)) for shard in range(len(records.card.shards))]
    integers = {name: tf.io.FixedLenFeature([], tf.int64) for name in ("height", "width", *FIELDS)}
    texts = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "source")}
    result = 0
    for payload, record in zip(tf.data.TFRecordDataset(shards).as_numpy_iterator(), records, strict=True):
        example = tf.io.parse_single_example(payload, integers | texts)
        assert {name: int(example[name]) for name in integers} == {name: getattr(record, name) for name in integers}
        assert (example["image"].numpy(), example["source"].numpy().decode()) == (record.image, record.source)
        decoded = tf.io.decode_jpeg(record.image, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(decoded, records.pixels(result))
        result += 1
    assert result == len(records)


@pytest.mark.parametrize("split", ["train", "query"])
def test_tfds_opens_the_folder(split: str, dataset: Path) -> None:
    import tensorflow_datasets as tfds

    records = Records(dataset, split)
    builder = tfds.builder_from_directory(dataset)
    assert builder.info.splits[split].num_examples == len(records)
    read = tfds.ReadConfig(interleave_cycle_length=1)  # front to back
    examples = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=read))
    for number, (example, record) in enumerate(zip(examples, records, strict=True)):
        assert {name: int(example[name]) for name in FIELDS} == {name: getattr(record, name) for name in FIELDS}
        assert example["source"].decode() == record.source
        assert np.abs(example["image"].astype(int) - records.pixels(number)).max() <= 3  # its decoder rounds otherwise


def test_our_frames_are_those_of_the_tensorflow_writer(dataset: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    records = Records(dataset, "query")
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for number in range(len(records)):
            writer.write(records.payload(number))
    assert (tmp_path / "theirs").read_bytes() == records.shard_path(0).read_bytes()


def test_shards_of_its_writer_are_adopted(tmp_path: Path) -> None:
    import tensorflow as tf

    pictures = np.random.default_rng(0).integers(0, 256, (6, 12, 8, 3), np.uint8)
    encoded = [tf.io.encode_jpeg(picture).numpy() for picture in pictures]

    def write(name: str, options: str = "") -> None:
        with tf.io.TFRecordWriter(str(tmp_path / name), options) as writer:
            for number, data in enumerate(encoded):
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number // 2])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())

    write("a.tfrecord")
    command = ["data", "adopt", str(tmp_path), "--image-feature=image/encoded", "--identity-feature=label"]
    assert main([*command, "--workers=1"]) == 0
    assert main(["data", "check", str(tmp_path)]) == 0
    records = Records(tmp_path)
    assert [record.image for record in records] == encoded
    assert records.index["identity"].tolist() == [0, 0, 1, 1, 2, 2]
    (tmp_path / "cion.json").unlink()
    write("a.tfrecord", "GZIP")
    with pytest.raises(UserError, match="compressed with GZIP"):
        adopt(tmp_path, {"train": "*.tfrecord"}, {"image": "image/encoded"}, 1)
