"""One image and what is known of it, as the bytes of a `tf.train.Example` that any TensorFlow reader parses."""

from dataclasses import dataclass, fields
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory


@dataclass(frozen=True)
class ImageRecord:
    """What a record holds. Numbers are -1 where unknown."""

    image: bytes
    """JPEG or PNG bytes, as they were imported."""
    height: int
    width: int
    video: int
    tracklet: int
    frame: int
    camera: int
    identity: int
    source: str
    """Where the image came from, for a person to trace back."""


def encode(record: ImageRecord) -> bytes:
    """Record to payload; equal records give equal bytes."""
    example = _Example()
    feature = example.features.feature
    for name, value in vars(record).items():
        if isinstance(value, int):
            feature[name].int64_list.value.append(value)
        else:
            feature[name].bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    return example.SerializeToString(deterministic=True)


def decode(payload: bytes) -> ImageRecord:
    """Payload to record; a ValueError if it is not such an Example."""
    try:
        feature = _Example.FromString(payload).features.feature
        return ImageRecord(**{field.name: _value(feature[field.name], field.type) for field in fields(ImageRecord)})
    except (message.DecodeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not an image record: {error}") from None


def values_of(payload: bytes) -> dict[str, list[Any]]:
    """What each feature of any `tf.train.Example` holds, by its name: bytes, whole numbers or floats."""
    try:
        features = _Example.FromString(payload).features.feature
    except message.DecodeError as error:
        raise ValueError(f"not a tf.train.Example: {error}") from None
    return {
        name: [*getattr(feature, feature.WhichOneof("kind") or "bytes_list").value]
        for name, feature in features.items()
    }


def image_of(payload: bytes, feature: str = "image") -> bytes:
    """The image bytes alone, in a third of the time; they are in a feature of that name."""
    try:
        return _Example.FromString(payload).features.feature[feature].bytes_list.value[0]
    except (message.DecodeError, IndexError) as error:
        raise ValueError(f"not an image record: {error}") from None


def _value(feature: Any, kind: Any) -> Any:
    if kind is int:
        return feature.int64_list.value[0]
    data = feature.bytes_list.value[0]
    return data if kind is bytes else data.decode()


def _example_message() -> Any:
    """The class of `tf.train.Example`, declared here so that TensorFlow may be imported beside it or not at all."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="cion_jax/example.proto", package="tensorflow", syntax="proto3")

    def add(parent: Any, name: str, *rows: tuple[str, int, int, int, str]) -> Any:
        """A message below a parent, with a row for each field: name, number, label, type, and name of its message."""
        declared = parent.add(name=name)
        for field_name, number, label, kind, type_name in rows:
            declared.field.add(name=field_name, number=number, label=label, type=kind, type_name=type_name or None)
        return declared

    one = field.LABEL_OPTIONAL
    many = field.LABEL_REPEATED
    sub = field.TYPE_MESSAGE
    # message BytesList { repeated bytes value = 1; }, and so on
    add(file.message_type, "BytesList", ("value", 1, many, field.TYPE_BYTES, ""))
    add(file.message_type, "FloatList", ("value", 1, many, field.TYPE_FLOAT, ""))
    add(file.message_type, "Int64List", ("value", 1, many, field.TYPE_INT64, ""))
    # message Feature { oneof kind { BytesList, FloatList, Int64List } }
    kinds = (("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List"))
    feature = add(file.message_type, "Feature", *((n, i, one, sub, f".tensorflow.{t}") for n, i, t in kinds))
    feature.oneof_decl.add(name="kind")
    for kind in feature.field:
        kind.oneof_index = 0
    # message Features { map<string, Feature> feature = 1; }
    features = add(file.message_type, "Features", ("feature", 1, many, sub, ".tensorflow.Features.FeatureEntry"))
    entry = ("key", 1, one, field.TYPE_STRING, ""), ("value", 2, one, sub, ".tensorflow.Feature")
    add(features.nested_type, "FeatureEntry", *entry).options.map_entry = True
    # message Example { Features features = 1; }
    add(file.message_type, "Example", ("features", 1, one, sub, ".tensorflow.Features"))

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _example_message()
