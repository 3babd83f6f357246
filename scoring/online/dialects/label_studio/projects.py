"""Remember the host and the token of each Label Studio project, and read the images of the projects."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, UnknownImage, kind
from sam_endpoint.model.images import ImageReader, ImageRef

MAX_PROJECTS = 1000  # maximum number of projects; a further project replaces the least recently used project
HOST_NEEDED = (
    "an image that the endpoint can download from Label Studio; connect the model to the project again, so that the "
    "endpoint knows the host of Label Studio, and allow the host with --hosts if it is not public"
)


@dataclass(frozen=True)
class Project:
    """The server of a Label Studio project.

    Attributes:
        hostname: URL of the Label Studio server.
        token: access token. The endpoint sends the token to this server only.
    """

    hostname: str
    token: str = field(default="", repr=False)

    def owns(self, url: str) -> bool:
        """Return whether a URL is on the Label Studio server."""
        own, other = urlsplit(self.hostname), urlsplit(url)
        return (own.scheme, own.netloc) == (other.scheme, other.netloc)


class Projects:
    """The projects that Label Studio has set up, by tenant and id. Safe to share between threads."""

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
    """Return the image of a task with its embedding. An image at a URL is not read again if its embedding is cached.

    Args:
        engine: embeds the image.
        value: a URL, a path on the Label Studio server such as `/data/upload/1/a.jpg`, a data URI or base64 text.
        project: the project of the task, or None if `/setup` was not called for the project.
        call: the request's `Call`.

    Raises:
        BadInput: the image cannot be read.
    """
    if not isinstance(value, str) or not value:
        raise BadInput("image", "a URL, a path on the Label Studio server or a data URI", kind(value))
    url = value
    if value.startswith("/") and not value.startswith("//"):
        if project is None:
            raise BadInput("image", HOST_NEEDED, "a path, and the endpoint does not know the host of the project")
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
        assert isinstance(engine.images, ImageReader)  # true for all engines of the endpoint
        headers = {"Authorization": f"Token {project.token}"} if project.token else {}
        try:
            data = engine.images.download(url, call, headers)
        except BadInput as error:
            raise BadInput("image", HOST_NEEDED, error.got) from None
        image = engine.embed(ImageRef.content(data, upright=True), call)
    engine.name(name, image)
    return image
