"""Where the images of Label Studio's projects lie: what `/setup` said about each project."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, UnknownImage, kind
from sam_endpoint.model.images import ImageReader, ImageRef

MAX_PROJECTS = 1000  # that are remembered; the least recently used is forgotten
HOST_NEEDED = (
    "an image of the Label Studio host; the endpoint learns the host when the ML backend is connected to the project "
    "(connect it again), and --hosts must allow a host that is not public"
)


@dataclass(frozen=True)
class Project:
    """What Label Studio said about a project.

    Attributes:
        hostname: URL of the Label Studio server.
        token: access token, sent to this server only.
    """

    hostname: str
    token: str = field(default="", repr=False)

    def owns(self, url: str) -> bool:
        """Return whether a URL is one of this server's."""
        own, other = urlsplit(self.hostname), urlsplit(url)
        return (own.scheme, own.netloc) == (other.scheme, other.netloc)


class Projects:
    """The projects that were set up, by tenant and id. Safe to share between threads."""

    def __init__(self) -> None:
        self._projects: OrderedDict[tuple[str, str], Project] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, tenant: str, project_id: str, project: Project) -> None:
        """Remember a project."""
        with self._lock:
            self._projects[tenant, project_id] = project
            self._projects.move_to_end((tenant, project_id))
            while len(self._projects) > MAX_PROJECTS:
                self._projects.popitem(last=False)

    def get(self, tenant: str, project_id: str) -> Project | None:
        """Return a project, or None if it was not set up since the endpoint started."""
        with self._lock:
            project = self._projects.get((tenant, project_id))
            if project is not None:
                self._projects.move_to_end((tenant, project_id))
            return project


def embed_task_image(engine: Engine, value: object, project: Project | None, call: Call) -> EmbeddedImage:
    """Return the image of a task with its embedding; an image that was embedded before is not read again.

    Args:
        engine: embeds the image.
        value: a URL, a path on the Label Studio server such as `/data/upload/1/a.jpg`, a data URI or base64 text.
        project: the project of the task.
        call: the request.

    Raises:
        BadInput: the image cannot be read.
    """
    if not isinstance(value, str) or not value:
        raise BadInput("image", "a URL, a path on the Label Studio server or a data URI", kind(value))
    url = value
    if value.startswith("/") and not value.startswith("//"):
        if project is None:
            raise BadInput("image", HOST_NEEDED, "a path, for a project without a known host")
        url = urljoin(project.hostname, value)
    if not url.lower().startswith(("http://", "https://")):
        return engine.embed(engine.images.reference(value, upright=True), call)
    name = f"label-studio {url}"
    try:
        return engine.find(name)
    except UnknownImage:
        pass
    if project is None or not project.owns(url):
        image = engine.embed(engine.images.reference(url, upright=True), call)
    else:
        assert isinstance(engine.images, ImageReader)  # as all engines of the endpoint have
        headers = {"Authorization": f"Token {project.token}"} if project.token else {}
        try:
            data = engine.images.download(url, call, headers)
        except BadInput as error:
            raise BadInput("image", HOST_NEEDED, error.got) from None
        image = engine.embed(ImageRef.content(data, upright=True), call)
    engine.name(name, image)
    return image
