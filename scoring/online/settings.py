"""The endpoint's settings: from the command line, the environment (`SAM_...`) or their defaults."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_CATALOG = Path(__file__).with_name("catalog.yaml")


class Settings(BaseSettings):
    """Serves Segment Anything to the clients of MLflow, Azure ML, Roboflow and Livepeer, and to browsers."""

    model_config = SettingsConfigDict(
        env_prefix="SAM_", cli_kebab_case=True, cli_hide_none_type=True, cli_prog_name="python -m scoring.online"
    )

    model: str | None = Field(None, description="MLflow model URI to serve under all names of its family")
    catalog: Path = Field(DEFAULT_CATALOG, description="YAML file of the models served, unless `model` names one")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(5000, ge=0, le=65535, description="port to listen on")
    device: str | None = Field(None, description="cpu, cuda, cuda:1; cuda when there is one unless named")
    precision: str | None = Field(
        None, description="of image encoders: float32, bfloat16, int8; the model's own setting unless named"
    )
    model_bytes: int = Field(8 * 2**30, gt=0, description="memory for models; the least recently used go beyond it")
    embedding_bytes: int = Field(2**30, gt=0, description="memory for kept embeddings")
    embedding_store: str | None = Field(None, description="folder or fsspec URL to keep embeddings in as well")
    batch_images: int = Field(8, gt=0, description="most images encoded in one batch")
    batch_requests: int = Field(64, gt=0, description="most requests decoded in one batch")
    batch_wait: float = Field(0.002, ge=0, le=1, description="seconds a batch waits for more when it is crowded")
    in_flight: int = Field(64, gt=0, description="most requests at a time; one more gets 503 and Retry-After")
    body_bytes: int = Field(64 * 2**20, gt=0, description="largest request body; a larger one gets 413")
    body_seconds: float = Field(
        60, gt=0, description="longest that a request's body may take (a slower one gets 408), and taking its answer"
    )
    prompts: int = Field(1000, gt=0, description="most prompts in one row of a request")
    pixels: int = Field(100_000_000, gt=0, description="largest image, width times height")
    urls: bool = Field(True, description="whether images are fetched from URLs")
    hosts: str | None = Field(
        None,
        description="hosts that URLs may name, parted by commas: * for every public one (the default), names and "
        "patterns such as *.example.com, networks such as 10.0.0.0/8",
    )
    fetch_seconds: float = Field(30, gt=0, description="longest that fetching one image may take")
    api_keys: SecretStr | None = Field(
        None, description="keys that may ask, parted by commas; without any everybody may"
    )
    api_keys_file: Path | None = Field(None, description="file with such keys, one a line")
    grace: float = Field(30, ge=0, description="seconds that requests in flight get to finish after SIGTERM")

    def known_hosts(self) -> tuple[str, ...]:
        """The hosts that URLs may name; none means that the model's own setting stands."""
        return tuple(host for named in (self.hosts or "").split(",") if (host := named.strip()))

    def keys(self) -> list[str]:
        """The keys that may ask; none means that everybody may."""
        found = self.api_keys.get_secret_value().split(",") if self.api_keys else []
        if self.api_keys_file:
            found += self.api_keys_file.read_text().splitlines()
        return [key for line in found if (key := line.strip())]
