"""Tiny trees of images in the layouts that importers read."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cion_jax.data.source import Source
from cion_jax.errors import UserError
from tfrecords_tools.importers import IMPORTERS


def image_bytes(path: str, height: int = 4, width: int = 3) -> bytes:
    """A different picture for each path, in the format of its ending."""
    pixels = np.random.default_rng(zlib.crc32(path.encode())).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if path.lower().endswith(".png") else "JPEG")
    return file.getvalue()


def plant(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image_bytes(path))
    return root


def rows(source: Source) -> list[tuple]:
    """(name, video, tracklet, frame, camera, identity) of each image; its bytes must be the planted ones."""
    result = list(source.encoded())
    assert len(result) == len(source) == len(source.labels)
    for data, name in result:
        assert data == image_bytes(name)
    return [(name, *labels.tolist()) for (_, name), labels in zip(result, source.labels, strict=True)]


def refusal(kind: str, source: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        IMPORTERS[kind](source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def write_annotations(root: Path, *entries: tuple[str, object], name: str = "train.json") -> Path:
    (root / name).write_text(json.dumps([{"file_path": path, "id": identity} for path, identity in entries]))
    return root / name


def as_jsonl(table: list[dict]) -> str:
    return "\n".join(map(json.dumps, table)) + "\n\n"


# Boxes in video frames


def plant_sequence(sequence: Path, boxes: str, frames: tuple[str, ...] = ("000001.png", "000002.png")) -> Path:
    """A sequence of frames of 120 x 100 pixels without loss, so that crops can be compared."""
    for folder in ("img1", "gt"):
        (sequence / folder).mkdir(parents=True, exist_ok=True)
    for frame in frames:
        (sequence / "img1" / frame).write_bytes(image_bytes(frame, 100, 120))
    (sequence / "gt" / "gt.txt").write_text(boxes)
    return sequence


GT = """\
2,7,10,20,30,60,1,1,1
1,7,10,20,30,60,1,1,0.25
1,12,-5.4,-10,25.4,70,1,1,0.9

1,3,99.6,50,50,1000,1,1,0.5
1,4,10,20,30,60,0,1,1
1,5,10,20,30,60,1,7,1
1,6,10,20,30,60,1,1,0.2
1,8,10,20,30,47,1,1,1
1,9,10,70,30,60,1,1,1
1,11,121,0,30,60,1,1,1
"""
