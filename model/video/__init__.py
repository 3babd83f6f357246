"""Read videos as frames: mp4, mov and webm files, GIF and WebP animations, and folders of images."""

from .limits import VideoLimits
from .opening import open_video
from .prefetch import prefetched
from .values import Video, VideoFrame

__all__ = ["Video", "VideoFrame", "VideoLimits", "open_video", "prefetched"]
