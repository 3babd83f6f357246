"""Settings of the endpoint, from the command line, the environment (`SAM_...`) or defaults."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_CATALOG = Path(__file__).with_name("catalog.yaml")


class EndpointSettings(BaseSettings):
    """Serves Segment Anything to the clients of MLflow, Azure ML, Roboflow and Livepeer, and to browsers."""

    model_config = SettingsConfigDict(
        env_prefix="SAM_", cli_kebab_case=True, cli_hide_none_type=True, cli_prog_name="sam-endpoint serve"
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
    prompts: int = Field(default=1000, gt=0, description="maximum number of prompts in a row of a request")
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
    grace: float = Field(default=30, ge=0, description="seconds for requests in flight to finish after SIGTERM")

    def known_hosts(self) -> tuple[str, ...]:
        """Return the allowed hosts of image URLs; if empty, the model's setting applies."""
        return tuple(host for part in (self.hosts or "").split(",") if (host := part.strip()))

    def keys(self) -> list[str]:
        """Return the accepted API keys; if empty, authentication is disabled."""
        lines = self.api_keys.get_secret_value().split(",") if self.api_keys else []
        if self.api_keys_file:
            lines += self.api_keys_file.read_text().splitlines()
        return [key for line in lines if (key := line.strip())]
