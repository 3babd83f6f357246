"""A model that is loaded into the endpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sam_endpoint.model.budget import NO_LIMITS, RequestLimits
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.params import ParamDefaults
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.online.batching import Batcher
from sam_endpoint.scoring.online.context import RequestContext

MAX_HEADER = 100  # characters of a model name in a header
DESCRIBED = ("bytes", "capabilities", "thresholds", "origin")  # keys of `ServedModel.describe`


@dataclass(frozen=True)
class ServedModel:
    """A loaded model, with everything that the routes of a dialect need.

    Attributes:
        name: name of the model in the catalog.
        engine: embeds and segments images. All tenants share it; routes call `engine_for` instead.
        defaults: default values of request parameters. `defaults.read(params)` checks and completes a request's
            `params`.
        nbytes: size of the weights in bytes.
        queues: the model's batchers, by the names `encode` and `decode`.
        origin: source of the model (URI, family, registered version), as `/models` reports it.
        starter: whether the model is one of the small models that come with the package.
        limits: limits on the tables that requests send.
    """

    name: str
    engine: Engine
    defaults: ParamDefaults
    nbytes: int
    queues: dict[str, Batcher[Any, Any]]
    origin: dict[str, Any]
    starter: bool = False
    limits: RequestLimits = NO_LIMITS

    @property
    def headers(self) -> dict[str, str]:
        """Response headers: `x-answered-by` (the model's name) and `x-model-version` (if the model is registered)."""
        names = {"x-answered-by": self.name, "x-model-version": self.origin.get("version")}
        return {header: re.sub("[^!-~]", "_", name)[:MAX_HEADER] for header, name in names.items() if name is not None}

    def describe(self) -> dict[str, Any]:
        """Return what `/models` reports of a loaded model.

        Returns:
            `bytes`; `capabilities`, as `ConceptSearch.capabilities`; `thresholds`, the default minimum scores of the
            instances of concepts, by the names of their params; and `origin`.
        """
        params = self.defaults.read({})
        thresholds = {"concept_thresh": params.concept_thresh, "exemplar_thresh": params.exemplar_thresh}
        values = (self.nbytes, self.engine.concepts.capabilities, thresholds, self.origin)
        return dict(zip(DESCRIBED, values, strict=True))

    def engine_for(self, context: RequestContext) -> Engine:
        """Return a view of the engine in which a request finds only the cached images of its own tenant.

        Args:
            context: context of the request.
        """
        return self.engine.for_tenant(context.tenant or "")

    def scorer(self, context: RequestContext) -> Scorer:
        """Return a scorer of tables that uses `engine_for(context)`.

        Args:
            context: context of the request.
        """
        return Scorer(self.engine_for(context), self.limits)
