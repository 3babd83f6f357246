"""The settings of the endpoint, from command-line options, environment variables (`SAM_...`) or defaults."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sam_endpoint.model.budget import RequestLimits
from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.json_text import MAX_VALUES

DEFAULT_CATALOG = Path(__file__).with_name("catalog.yaml")
_ORIGIN = re.compile(r"\*|https?://[^/?#\s,*]+|[a-z][a-z0-9+.-]*-extension://[^/?#\s,*]+")


class EndpointSettings(BaseSettings):
    """The settings of `sam-endpoint serve`. The description of each field is the help text of its option."""

    model_config = SettingsConfigDict(
        env_prefix="SAM_",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_prog_name="sam-endpoint serve",
        allow_inf_nan=False,
    )

    model: str | None = Field(
        default=None, description="URI of an MLflow model; it answers to all model names of its family"
    )
    catalog: Path = Field(
        default=DEFAULT_CATALOG, description="YAML file that lists the served models; ignored if --model is given"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 listens on all addresses")
    port: int = Field(default=5000, ge=0, le=65535, description="port to listen on; 0 takes any free port")
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="port for gRPC calls of the Open Inference Protocol (needs the extra `grpc`); default: no gRPC",
    )
    root_path: str = Field(
        default="",
        pattern=r"^((/[A-Za-z0-9._~-]+)+)?$",
        description="path prefix under which a proxy serves the endpoint, such as /segment; default: none",
    )
    refresh_seconds: float = Field(
        default=0,
        ge=0,
        description="interval in seconds at which the aliases of registered models are checked for new versions; 0: "
        "only on POST /models/refresh",
    )
    device: str | None = Field(default=None, description="cpu, cuda or cuda:N; default: cuda if available, else cpu")
    precision: str | None = Field(
        default=None, description="precision of image encoders: float32, bfloat16 or int8; default: the model's setting"
    )
    compile_encoder: bool | None = Field(
        default=None, description="compile image encoders at the start, for GPUs; default: the model's setting"
    )
    model_bytes: int = Field(
        default=8 * 2**30, gt=0, description="bytes of memory for model weights; least recently used models are evicted"
    )
    embedding_bytes: int = Field(default=2**30, gt=0, description="bytes of memory for cached image embeddings")
    device_embedding_bytes: int = Field(
        default=2**30, gt=0, description="bytes of GPU memory for cached embeddings; others are in main memory"
    )
    embedding_store: str | None = Field(
        default=None, description="folder or fsspec URL of a persistent embedding cache"
    )
    embedding_store_bytes: int | None = Field(
        default=None,
        gt=0,
        description="maximum size of the embedding store; default: all but a reserve of its disk, no limit elsewhere",
    )
    embedding_store_key: SecretStr | None = Field(
        default=None,
        description="secret that signs files of the embedding store; files without its signature are ignored",
    )
    batch_images: int = Field(default=8, gt=0, description="maximum number of images encoded in one batch")
    batch_requests: int = Field(default=64, gt=0, description="maximum number of requests decoded in one batch")
    batch_wait: float = Field(
        default=0.002, ge=0, le=1, description="seconds that a batch waits for further requests under load"
    )
    in_flight: int = Field(
        default=64, gt=0, description="maximum number of requests in progress; further requests get 503 and Retry-After"
    )
    body_bytes: int = Field(
        default=32 * 2**20, gt=0, description="maximum size of a request body in bytes; larger bodies get status 413"
    )
    body_seconds: float = Field(
        default=60,
        gt=0,
        description="timeout in seconds for receiving a request body (then status 408) and for sending the response",
    )
    header_seconds: float = Field(
        default=10,
        gt=0,
        description="timeout in seconds for receiving the headers of a request; then the connection closes",
    )
    connections: int = Field(
        default=1000,
        gt=0,
        description="maximum number of open connections; reduced if the limit of file descriptors is lower",
    )
    request_seconds: float = Field(
        default=300, gt=0, description="timeout in seconds for answering a request; then status 504"
    )
    rows: int = Field(default=1000, gt=0, description="maximum number of rows in a request")
    prompts: int = Field(default=1000, gt=0, description="maximum number of prompts in one row of a request")
    request_prompts: int = Field(
        default=10_000, gt=0, description="maximum number of prompts in all rows of a request together"
    )
    concepts: int = Field(
        default=1000,
        gt=0,
        description="maximum number of texts, and of other concepts that a detector searches for, in all rows of a "
        "request together",
    )
    points: int = Field(
        default=32_768,
        gt=0,
        description="maximum number of grid points for automatic mask generation in all rows and crops of a request",
    )
    track_frames: int = Field(
        default=1000, gt=0, description="maximum number of frames of a video in a request for tracking"
    )
    track_objects: int = Field(default=50, gt=0, description="maximum number of objects in a request for tracking")
    track_sessions: int = Field(
        default=16, gt=0, description="maximum number of open sessions for tracking; one API key gets half of them"
    )
    track_session_seconds: float = Field(
        default=300, gt=0, description="time in seconds after which a session for tracking that is not used is closed"
    )
    answer_bytes: int = Field(default=128 * 2**20, gt=0, description="maximum size of a response in bytes")
    memory: int = Field(
        default=2 * 2**30,
        gt=0,
        description="bytes of memory for the requests in progress: their bodies, images, masks and responses; see "
        "--model-bytes and --embedding-bytes for models and cached embeddings",
    )
    image_bytes: int = Field(default=64 * 2**20, gt=0, description="maximum size of an image file in bytes")
    pixels: int = Field(default=100_000_000, gt=0, description="maximum number of pixels of an image")
    urls: bool = Field(default=True, description="whether requests may name images by URL")
    hosts: str | None = Field(
        default=None,
        description="hosts from which images are downloaded, comma-separated: names, patterns such as *.example.com, "
        "networks such as 10.0.0.0/8, or * for every public host; default: the model's own setting, normally *",
    )
    fetch_seconds: float = Field(default=30, gt=0, description="timeout in seconds for downloading an image")
    api_keys: SecretStr | None = Field(
        default=None, description="accepted API keys, comma-separated; without any key, authentication is disabled"
    )
    api_keys_file: Path | None = Field(default=None, description="file of accepted API keys, one per line")
    public_metrics: bool = Field(default=False, description="whether /metrics can be read without an API key")
    allowed_hosts: str = Field(
        default="*",
        description="accepted values of the Host header, comma-separated, such as endpoint.example.com,*.example.com; "
        "* accepts every value",
    )
    cors_origins: str = Field(
        default="",
        description="origins of web pages that may send requests, comma-separated, such as https://app.example.com; "
        "* allows every origin; default: none",
    )
    grace: float = Field(default=30, ge=0, description="seconds for requests in progress to finish after SIGTERM")

    def image_hosts(self) -> tuple[str, ...]:
        """Return the allowed hosts of image URLs. If the tuple is empty, the model's own setting applies."""
        return tuple(_split(self.hosts or ""))

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for number, origin in enumerate(_split(value.lower()), 1):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"number {number}: expected * or an origin such as https://app.example.com, got another"
                )
        return value

    def origins(self) -> list[str]:
        """Return the origins, in lower case, whose pages may send requests."""
        return _split(self.cors_origins.lower())

    def served_hosts(self) -> list[str]:
        """Return the accepted values of the Host header; `["*"]` accepts every value."""
        return _split(self.allowed_hosts) or ["*"]

    def limits(self) -> RequestLimits:
        """Return the limits on a request that sends a table."""
        return RequestLimits(
            self.rows,
            self.request_prompts,
            self.points,
            self.answer_bytes,
            MAX_VALUES,
            self.track_frames,
            self.track_objects,
            self.concepts,
        )

    def state_key(self) -> bytes:
        """Return the key that signs states which clients keep: the key of the embedding store, or a random one."""
        key = self.embedding_store_key
        return key.get_secret_value().encode() if key else secrets.token_bytes(32)

    def keys(self) -> list[str]:
        """Return the accepted API keys. If the list is empty, authentication is disabled.

        Raises:
            BadData: the file of keys cannot be read, or one of the two settings is given but holds no key.
        """
        keys = _split(self.api_keys.get_secret_value()) if self.api_keys else []
        if self.api_keys_file:
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError:
                expected = "expected UTF-8 text, one key per line, got another encoding"
                raise BadData(f"--api-keys-file {self.api_keys_file}: {expected}") from None
            except OSError as error:
                raise BadData(f"--api-keys-file {self.api_keys_file}: {error.strerror}") from None
            keys += [key for line in lines if (key := line.strip())]
        # Without this error, an empty file would disable authentication.
        if not keys and (self.api_keys_file or (self.api_keys and self.api_keys.get_secret_value())):
            raise BadData("--api-keys, --api-keys-file: expected at least one key, got none")
        return keys


def _split(text: str) -> list[str]:
    return [item for part in text.split(",") if (item := part.strip())]
