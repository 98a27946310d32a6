"""How tracklets are made of video files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Tracking:
    """How people are found in videos and followed."""

    detector: Path | None = None
    """An ONNX file that finds people; without one, OpenCV's HOG detector looks where something moves, which needs no
    download, is slow (a few frames a second) and finds people who stand upright and are seen whole."""
    layout: Literal["yolox", "yolov8", "detr"] = "yolox"
    """What the ONNX file gives: yolox (1, N, 5 + classes), not decoded; yolov8 (1, 4 + classes, N); detr logits and
    boxes (1, N, ...). The person is class 0, in detr class 1."""
    boxes: Path | None = None
    """Boxes that were found elsewhere: MOT text, COCO JSON, or a folder with a YOLO text file for each frame; frames
    are counted from 1. For several videos: a folder with such a file or folder for each, of the video's name."""
    every: int = 1
    """Look at every N-th frame only. Neighbouring frames are nearly the same picture: 5 to 10 gives a fifth to a tenth
    of the images and of the time, and follows people less surely."""
    minutes: float = 5.0
    """Videos longer than this are cut into stretches of so many minutes. Each counts as a video of its own: denoising
    then compares the tracklets of one stretch first, and those of different stretches afterwards."""
    min_height: int = 48
    """Leave out boxes that have fewer rows of pixels inside the frame; nothing smaller is looked for."""
    min_images: int = 10
    """Leave out tracklets of fewer images."""
    bridge: float = 2.0
    """Seconds for which a person may be out of sight and still be the same tracklet, if found where expected."""
    camera_pattern: str = ""
    """A regular expression that finds the camera in a file's name: its first group, or all that it matches, as in
    'cam([0-9]+)'. Without it each file is a camera of its own."""
