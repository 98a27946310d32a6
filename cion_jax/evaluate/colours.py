"""The colours of each video, matched to those of all videos: features then depend less on cameras and daylight.

Per channel: m and s are the mean and the standard deviation over all tracklets, m_v and s_v those of video v, shrunk
towards m and s: the fewer tracklets v has, the more. A pixel x of v becomes clip((x - m_v) s / s_v + m, 0, 1).
"""

import numpy as np

from cion_jax.evaluate.embed import Colours, Images, batched, in_threads
from cion_jax.hosts import all_gather, local_part
from cion_jax.terminal import Progress, no_progress

#: The values of a channel of uint8 pixels, from 0 to 1.
_VALUES = np.arange(256) / 255
#: The smallest standard deviation, for channels that have one value everywhere: 0 has no logarithm.
_SMALLEST = 1 / 255
#: Images that a thread reads at a time.
_SPAN = 64


def image_colours(images: Images, image_size: tuple[int, int], *, progress: Progress = no_progress) -> np.ndarray:
    """The colours of each image, float64 (N, 2, 3): mean and log standard deviation of the channels, values 0 to 1.

    Hosts share the images, and threads decode them.

    Args:
        images: Where the pixels come from.
        image_size: Height and width to which images are resized: those with which they will be embedded.
        progress: Called with the number of further images that this host has read.
    """

    def read(span: range) -> np.ndarray:
        pixels = np.empty((*image_size, 3), np.uint8)
        colours = np.empty((len(span), 2, 3))
        for row, number in enumerate(span):
            images.pixels_into(pixels, number)
            colours[row] = _colours(pixels)
        return colours

    parts = [np.empty((0, 2, 3))]
    for part in in_threads(read, batched(local_part(range(len(images))), _SPAN)):
        parts.append(part)
        progress(len(part))
    return all_gather(np.concatenate(parts))


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Mean and log standard deviation of each channel, (2, 3), from the histogram of its 256 values, which is fast."""
    counts_3x256 = np.stack([np.bincount(channel, minlength=256) for channel in pixels.reshape(-1, 3).T])
    share_3x256 = counts_3x256 / counts_3x256.sum(1, keepdims=True)
    mean = share_3x256 @ _VALUES
    variance = (share_3x256 * (_VALUES - mean[:, None]) ** 2).sum(1)
    return np.stack([mean, np.log(np.maximum(np.sqrt(variance), _SMALLEST))])


def matchable(video: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    """(N,) booleans: whether an image has a video and a tracklet, so that its colours can be matched."""
    return (video >= 0) & (tracklet >= 0)


def matched(colours_Nx2x3: np.ndarray, video: np.ndarray, tracklet: np.ndarray) -> Colours:
    """The scale and the shift that match the colours of each image's video to those of all videos.

    All images of a video have the same scale and shift; an image without video or tracklet keeps its colours: scale 1,
    shift 0. The fewer tracklets a video has, the less it changes, since its colours may be those of its people.

    Args:
        colours_Nx2x3: What `image_colours` returned.
        video: (N,) whole numbers, -1 where the video is not known.
        tracklet: (N,) whole numbers, -1 for none; two videos may use the same numbers.
    """
    scale = np.ones((len(video), 3), np.float32)
    shift = np.zeros((len(video), 3), np.float32)
    known = matchable(video, tracklet)
    if known.any():
        value_Tx2x3, video_T, video_of_image = _tracklets(colours_Nx2x3[known], video[known], tracklet[known])
        overall_2x3, by_video_Vx2x3 = _shrunk_means(value_Tx2x3, video_T)
        mean_3, log_std_3 = overall_2x3
        mean_Vx3 = by_video_Vx2x3[:, 0]
        log_std_Vx3 = by_video_Vx2x3[:, 1]
        scale_Vx3 = np.exp(log_std_3 - log_std_Vx3)  # s / s_v
        shift_Vx3 = mean_3 - mean_Vx3 * scale_Vx3  # m - m_v s / s_v
        scale[known] = scale_Vx3[video_of_image]
        shift[known] = shift_Vx3[video_of_image]
    return scale, shift


def _tracklets(
    colours: np.ndarray, video: np.ndarray, tracklet: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean colours of each tracklet, (T, 2, 3), its video, (T,), and the video of each image, (N,).

    Videos are numbered anew, from 0 without gaps.
    """
    video_of_image = np.unique(video, return_inverse=True)[1]
    count = int(tracklet.max()) + 1
    names, tracklet_of_image = np.unique(video_of_image * count + tracklet, return_inverse=True)
    return _means(colours, tracklet_of_image), names // count, video_of_image


def _shrunk_means(value_Tx2x3: np.ndarray, video_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean m of the tracklets' values, (2, 3), and the mean of each video, shrunk towards m, (V, 2, 3).

    Shrinkage is James and Stein's: m + a_v (m_v - m), with a_v = b / (b + w / k_v) for a video of k_v tracklets, where
    w is the variance within videos and b that between them.
    """
    m_2x3 = value_Tx2x3.mean(0)
    m_Vx2x3 = _means(value_Tx2x3, video_T)
    degrees = max(len(value_Tx2x3) - len(m_Vx2x3), 1)  # T - V; where that is 0, so is the sum that it divides
    w_2x3 = ((value_Tx2x3 - m_Vx2x3[video_T]) ** 2).sum(0) / degrees
    noise_Vx2x3 = w_2x3 / np.bincount(video_T)[:, None, None]  # w / k_v
    b_2x3 = np.maximum(((m_Vx2x3 - m_2x3) ** 2).mean(0) - noise_Vx2x3.mean(0), 0)
    a_Vx2x3 = np.divide(b_2x3, b_2x3 + noise_Vx2x3, out=np.zeros_like(noise_Vx2x3), where=b_2x3 > 0)
    return m_2x3, m_2x3 + a_Vx2x3 * (m_Vx2x3 - m_2x3)


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The mean of the rows of each group, (groups, ...); `group` has the group of each row, from 0 without gaps."""
    sums = [np.bincount(group, column) for column in values.reshape(len(values), -1).T]
    return (np.stack(sums) / np.bincount(group)).T.reshape(-1, *values.shape[1:])
