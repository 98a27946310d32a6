"""The colours of each video, matched to those of all: cameras and daylight then tell less of who is who.

Per channel: m and s are the mean and the standard deviation over all tracklets, m_v and s_v those of a video v, shrunk
to m and s (the more, the fewer tracklets v has). A pixel x of v becomes clip((x - m_v) s / s_v + m).
"""

import numpy as np

from cion_jax.evaluate.embed import Colours, Images, batched, in_threads
from cion_jax.hosts import all_gather, local_part
from cion_jax.terminal import Progress, no_progress

#: The values of a pixel as networks see them.
_VALUES = np.arange(256) / 255
#: The standard deviation of a channel that has one value everywhere: one step of 255, since 0 has no logarithm.
_LEAST = 1 / 255
#: Images that a thread reads in one piece.
_SPAN = 64


def image_colours(images: Images, image_size: tuple[int, int], *, progress: Progress = no_progress) -> np.ndarray:
    """The colours of each image, float64 (N, 2, 3): mean and log standard deviation of the channels, values 0 to 1.

    Hosts share the images, threads decode them; `progress` hears of those that are read here.

    Args:
        images: Where the pixels come from.
        image_size: Height and width to which images are resized: those with which they will be embedded.
        progress: Called with the number of further images that are read.
    """

    def read(span: range) -> np.ndarray:
        pixels = np.empty((*image_size, 3), np.uint8)
        colours = np.empty((len(span), 2, 3))
        for place, number in enumerate(span):
            images.pixels_into(pixels, number)
            colours[place] = _colours(pixels)
        return colours

    parts = [np.empty((0, 2, 3))]
    for part in in_threads(read, batched(local_part(range(len(images))), _SPAN)):
        parts.append(part)
        progress(len(part))
    return all_gather(np.concatenate(parts))


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Mean and log standard deviation of each channel, (2, 3): how often each value occurs says both, and fast."""
    counts_3x256 = np.stack([np.bincount(channel, minlength=256) for channel in pixels.reshape(-1, 3).T])
    share_3x256 = counts_3x256 / counts_3x256.sum(1, keepdims=True)
    mean = share_3x256 @ _VALUES
    variance = (share_3x256 * (_VALUES - mean[:, None]) ** 2).sum(1)
    return np.stack([mean, np.log(np.maximum(np.sqrt(variance), _LEAST))])


def matchable(video: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    """(N,) booleans: which images have a video and a tracklet, so that their colours can be matched."""
    return (video >= 0) & (tracklet >= 0)


def matched(colours_Nx2x3: np.ndarray, video: np.ndarray, tracklet: np.ndarray) -> Colours:
    """Scale and shift of the channels of each image that match the colours of its video to those of all videos.

    All images of a video have the same; an image without video or tracklet keeps its colours: scale 1, shift 0. The
    fewer tracklets a video has, the less it changes: its colours may be those of its people.

    Args:
        colours_Nx2x3: What `image_colours` returned.
        video: (N,) whole numbers, -1 where not known.
        tracklet: (N,) whole numbers, -1 for none; they count within their video.
    """
    scale, shift = np.ones((len(video), 3), np.float32), np.zeros((len(video), 3), np.float32)
    known = matchable(video, tracklet)
    if known.any():
        value_Tx2x3, video_T, video_of_image = _tracklets(colours_Nx2x3[known], video[known], tracklet[known])
        colours_2x3, colours_Vx2x3 = _shrunk(value_Tx2x3, video_T)
        mean, mean_V = colours_2x3[0], colours_Vx2x3[:, 0]
        scale_V = np.exp(colours_2x3[1] - colours_Vx2x3[:, 1])  # s / s_v
        scale[known] = scale_V[video_of_image]
        shift[known] = (mean - mean_V * scale_V)[video_of_image]  # m - m_v s / s_v
    return scale, shift


def _tracklets(
    colours: np.ndarray, video: np.ndarray, tracklet: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean colours of each tracklet, (T, 2, 3), the video of each, and that of each image, numbered from 0."""
    video_of_image = np.unique(video, return_inverse=True)[1]
    count = int(tracklet.max()) + 1
    names, tracklet_of_image = np.unique(video_of_image * count + tracklet, return_inverse=True)
    return _means(colours, tracklet_of_image), names // count, video_of_image


def _shrunk(value: np.ndarray, video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean m of tracklets' values, (2, 3), and that of each video, James-Stein-shrunk to m, (V, 2, 3)."""
    mean, mean_V = value.mean(0), _means(value, video)
    spare = max(len(value) - len(mean_V), 1)  # T - V; where that is 0, so is what it divides
    within = ((value - mean_V[video]) ** 2).sum(0) / spare  # w
    noise_V = within / np.bincount(video)[:, None, None]  # w / k_v
    between = np.maximum(((mean_V - mean) ** 2).mean(0) - noise_V.mean(0), 0)  # b
    trust_V = np.divide(between, between + noise_V, out=np.zeros_like(noise_V), where=between > 0)  # a_v
    return mean, mean + trust_V * (mean_V - mean)


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The mean of the rows of each group, (groups, ...); `group` numbers them from 0 without gaps."""
    sums = [np.bincount(group, column) for column in values.reshape(len(values), -1).T]
    return (np.stack(sums) / np.bincount(group)).T.reshape(-1, *values.shape[1:])
