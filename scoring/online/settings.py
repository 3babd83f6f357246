"""Settings of the endpoint, from the command line, the environment (`SAM_...`) or defaults."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sam_endpoint.model.budget import RequestLimits
from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.json_text import MAX_VALUES

DEFAULT_CATALOG = Path(__file__).with_name("catalog.yaml")
_ORIGIN = re.compile(r"\*|https?://[^/?#\s,*]+|[a-z][a-z0-9+.-]*-extension://[^/?#\s,*]+")


class EndpointSettings(BaseSettings):
    """Serves Segment Anything to the clients of MLflow, Azure ML, Roboflow and Livepeer, and to browsers."""

    model_config = SettingsConfigDict(
        env_prefix="SAM_",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_prog_name="sam-endpoint serve",
        allow_inf_nan=False,
    )

    model: str | None = Field(default=None, description="MLflow model URI to serve under all names of its family")
    catalog: Path = Field(
        default=DEFAULT_CATALOG, description="YAML file of the models served, unless `model` names one"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=5000, ge=0, le=65535, description="port to listen on")
    device: str | None = Field(default=None, description="cpu, cuda, cuda:1; default: cuda if available")
    precision: str | None = Field(
        default=None, description="precision of image encoders: float32, bfloat16, int8; default: the model's setting"
    )
    model_bytes: int = Field(
        default=8 * 2**30, gt=0, description="memory for models; the least recently used are evicted"
    )
    embedding_bytes: int = Field(default=2**30, gt=0, description="memory for cached embeddings")
    embedding_store: str | None = Field(
        default=None, description="folder or fsspec URL of a persistent embedding cache"
    )
    embedding_store_bytes: int | None = Field(
        default=None,
        gt=0,
        description="maximum size of the embedding store; default: all but a reserve of its disk, no limit elsewhere",
    )
    embedding_store_key: SecretStr | None = Field(
        default=None, description="secret that seals the files of the embedding store; others are not read"
    )
    batch_images: int = Field(default=8, gt=0, description="maximum number of images encoded in one batch")
    batch_requests: int = Field(default=64, gt=0, description="maximum number of requests decoded in one batch")
    batch_wait: float = Field(
        default=0.002, ge=0, le=1, description="seconds that a batch waits for more requests under load"
    )
    in_flight: int = Field(
        default=64, gt=0, description="maximum number of concurrent requests; further requests get 503 and Retry-After"
    )
    body_bytes: int = Field(
        default=64 * 2**20, gt=0, description="maximum size of a request body; larger bodies get 413"
    )
    body_seconds: float = Field(
        default=60,
        gt=0,
        description="timeout in seconds for receiving a request body (then 408), and for sending the response",
    )
    header_seconds: float = Field(
        default=10, gt=0, description="timeout in seconds for receiving the headers of a request"
    )
    connections: int = Field(
        default=1000,
        gt=0,
        description="maximum number of open connections, lowered to what the limit of file descriptors allows",
    )
    request_seconds: float = Field(
        default=300, gt=0, description="timeout in seconds for answering a request; then 504"
    )
    rows: int = Field(default=1000, gt=0, description="maximum number of rows in a request")
    prompts: int = Field(default=1000, gt=0, description="maximum number of prompts in a row of a request")
    request_prompts: int = Field(
        default=10_000, gt=0, description="maximum number of prompts in a request, all rows together"
    )
    points: int = Field(
        default=32_768,
        gt=0,
        description="maximum number of points of automatic mask generation in a request, all rows and crops together",
    )
    answer_bytes: int = Field(default=128 * 2**20, gt=0, description="maximum size of an answer")
    memory: int = Field(
        default=2 * 2**30,
        gt=0,
        description="memory for the requests in progress: bodies, images, masks and answers; models and cached "
        "embeddings have limits of their own",
    )
    image_bytes: int = Field(default=64 * 2**20, gt=0, description="maximum size of an image file")
    pixels: int = Field(default=100_000_000, gt=0, description="maximum image size, width times height")
    urls: bool = Field(default=True, description="whether images are fetched from URLs")
    hosts: str | None = Field(
        default=None,
        description="allowed hosts of image URLs, comma-separated: * for every public host (the default), names and "
        "patterns such as *.example.com, networks such as 10.0.0.0/8",
    )
    fetch_seconds: float = Field(default=30, gt=0, description="timeout in seconds for downloading an image")
    api_keys: SecretStr | None = Field(
        default=None, description="accepted API keys, comma-separated; without keys, no authentication"
    )
    api_keys_file: Path | None = Field(default=None, description="file of accepted API keys, one per line")
    public_metrics: bool = Field(
        default=False, description="whether /metrics is read without a key where there are keys"
    )
    allowed_hosts: str = Field(
        default="*",
        description="host names that requests may name, comma-separated, such as endpoint.example.com, *.example.com; "
        "default: every name",
    )
    cors_origins: str = Field(
        default="",
        description="origins whose browser pages may send requests, comma-separated, such as https://app.example.com; "
        "* for every origin; default: none",
    )
    grace: float = Field(default=30, ge=0, description="seconds for requests in flight to finish after SIGTERM")

    def known_hosts(self) -> tuple[str, ...]:
        """Return the allowed hosts of image URLs; if empty, the model's setting applies."""
        return tuple(_split(self.hosts or ""))

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for number, origin in enumerate(_split(value.lower()), 1):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"number {number}: expected * or an origin such as https://app.example.com")
        return value

    def origins(self) -> list[str]:
        """Return the origins whose pages may send requests; empty if none may."""
        return _split(self.cors_origins.lower())

    def served_hosts(self) -> list[str]:
        """Return the host names that requests may name."""
        return _split(self.allowed_hosts) or ["*"]

    def limits(self) -> RequestLimits:
        """Return what a request for a table may cost."""
        return RequestLimits(self.rows, self.request_prompts, self.points, self.answer_bytes, MAX_VALUES)

    def keys(self) -> list[str]:
        """Return the accepted API keys; if empty, authentication is disabled.

        Raises:
            BadData: the file of keys cannot be read, or no key is where keys are set.
        """
        keys = _split(self.api_keys.get_secret_value()) if self.api_keys else []
        if self.api_keys_file:
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise BadData(f"--api-keys-file {self.api_keys_file}: expected UTF-8 text, one key a line") from None
            except OSError as error:
                raise BadData(f"--api-keys-file {self.api_keys_file}: {error.strerror}") from None
            keys += [key for line in lines if (key := line.strip())]
        # Without this error, an empty file would open the endpoint to everybody.
        if not keys and (self.api_keys_file or (self.api_keys and self.api_keys.get_secret_value())):
            raise BadData("--api-keys, --api-keys-file: expected at least one key, got none")
        return keys


def _split(text: str) -> list[str]:
    return [item for part in text.split(",") if (item := part.strip())]
