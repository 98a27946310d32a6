"""Detectors: the one that needs no download, and networks in ONNX files."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cion_jax.config import Tracking, Writing
from cion_jax.data.boxes import BOXES_FILE
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from tfrecords_tools.video.frames import Frame, Reading
from tfrecords_tools.video.importing import import_videos
from tfrecords_tools.video.pedestrians import Pedestrians
from videos import write_video

SIZE = 96  # rows of the drawn person


def scene(left: int | None) -> np.ndarray:
    """A wall and a floor, and perhaps a drawn person whose middle is at a column."""
    picture = np.full((200, 320, 3), 170, np.uint8)
    picture[150:] = 140
    if left is not None:
        unit = SIZE / 8
        ink = (40, 45, 60)

        def at(points: list[tuple[float, float]]) -> np.ndarray:
            return np.array([(left + x * unit, 60 + y * unit) for x, y in points]).astype(np.int32)

        cv2.circle(picture, at([(0, 0.55)])[0].tolist(), int(unit / 2), ink, -1, cv2.LINE_AA)
        cv2.fillPoly(picture, [at([(-1, 1.2), (1, 1.2), (1.05, 3.6), (0.8, 4.2), (-0.8, 4.2), (-1.05, 3.6)])], ink)
        for side in (-1, 1):
            cv2.fillPoly(picture, [at([(side * 0.8, 4), (0, 4), (side * 0.15, 7.9), (side * 0.75, 7.9)])], ink)
    return cv2.GaussianBlur(picture, (3, 3), 0)


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn person comes after five empty frames and walks to the right."""
    steps = [None] * 5 + [40 + 8 * step for step in range(25)]
    return write_video(tmp_path_factory.mktemp("walk") / "walk.mp4", [scene(step) for step in steps])


def test_a_drawn_person_is_followed_without_any_network(walk: Path, tmp_path: Path) -> None:
    import_videos(walk, tmp_path / "out", Tracking(), Writing(workers=1))
    index = Records(tmp_path / "out").index
    boxes = np.load(tmp_path / "out" / BOXES_FILE)
    assert set(index["tracklet"]) == {0} and len(index) >= 23 and index["frame"].min() >= 6
    middle = boxes["left"] + boxes["width"] / 2
    assert np.abs(middle - (40 + 8 * (index["frame"] - 6))).max() < 8
    assert np.abs(boxes["top"] - 60).max() < 8 and np.abs(boxes["height"] - SIZE).max() < 16


def test_a_person_who_moves_is_surer_than_one_of_whom_nothing_is_known(walk: Path) -> None:
    """The background is learnt from the sample: without one, all of the first frame could be background."""
    frames = list(Reading(walk))
    told, untold = Pedestrians(48, 1), Pedestrians(48, 1)
    told.begin(frames[::2])
    scores = []
    for detector in (told, untold):
        _, score = detector(frames[20])
        scores.append(score.max())
    assert scores[0] > scores[1] + 0.02


def test_nobody_is_found_in_an_empty_scene(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [scene(None)] * 12)
    with pytest.raises(UserError, match="no tracklets found"):
        import_videos(path, tmp_path / "out", Tracking(), Writing(workers=1))


def network(path: Path, outputs: dict[str, np.ndarray], size: tuple[int, int]) -> Path:
    """An ONNX file that says the same of every picture."""
    reason = "onnx and onnxruntime, to make and run a network, are not installed"
    onnx = pytest.importorskip("onnx", reason=reason)
    pytest.importorskip("onnxruntime", reason=reason)
    helper: Any = onnx.helper
    real = onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array.astype(np.float32)))
        for name, array in outputs.items()
    ]
    given = [helper.make_tensor_value_info("images", real, [1, 3, *size])]
    told = [helper.make_tensor_value_info(name, real, array.shape) for name, array in outputs.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", given, told), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, str(path))
    return path


def yolox() -> dict[str, np.ndarray]:
    """A box of 16 x 32 around (40, 24) in a picture of 64 x 64: half a cell right of cell (4, 3) with stride 8."""
    output = np.zeros((1, 64 + 16 + 4, 7))
    output[0, 3 * 8 + 4] = [1, 0, np.log(2), np.log(4), 0.9, 1, 0]
    return {"output": output}


def yolov8() -> dict[str, np.ndarray]:
    output = np.zeros((1, 6, 84))
    output[0, :, 5] = [40, 40, 16, 32, 0.9, 0]  # 16 rows above the frame are grey, so that this is row 24
    return {"output": output}


def detr() -> dict[str, np.ndarray]:
    logits = np.full((1, 4, 91), -9.0)
    logits[0, 2, 1] = np.log(9)
    boxes = np.full((1, 4, 4), 0.5)
    boxes[0, 2] = [40 / 64, 24 / 32, 16 / 64, 32 / 32]
    return {"logits": logits, "boxes": boxes}


@pytest.mark.parametrize(("layout", "outputs"), [("yolox", yolox), ("yolov8", yolov8), ("detr", detr)])
def test_layouts_of_networks(layout: str, outputs: Any, tmp_path: Path) -> None:
    """The same box in a frame of 128 x 64, which is twice as large as what networks see of it."""
    path = network(tmp_path / "a.onnx", outputs(), (64, 64))
    from tfrecords_tools.video.onnx import OnnxDetector

    frame: Any = type("Drawn", (Frame,), {"pixels": np.zeros((64, 128, 3), np.uint8)})(1, 0.0, 0, None, b"")
    boxes, scores = OnnxDetector(path, layout, 1)(frame)
    assert np.allclose(boxes, [[64, 16, 96, 80]], atol=1e-3) and np.allclose(scores, 0.9, atol=1e-6)
    other = {"yolox": "yolov8", "yolov8": "detr", "detr": "yolox"}[layout]
    with pytest.raises(UserError, match=f"not of the layout {other}"):
        OnnxDetector(path, other, 1)(frame)


def test_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    network(tmp_path / "good.onnx", yolox(), (64, 64))
    from tfrecords_tools.video.onnx import OnnxDetector

    (tmp_path / "a.onnx").write_text("no network")
    with pytest.raises(UserError, match="cannot be used as an ONNX network"):
        OnnxDetector(tmp_path / "a.onnx", "yolox", 1)
