"""The interface of concept finders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..call import Call
from .values import Concept, Instances, Thresholds

if TYPE_CHECKING:
    from ..embedded_image import EmbeddedImage
    from ..segmenter import Segmenter


class ConceptFinder(Protocol):
    """Finds the instances of concepts in an image. A finder keeps no state of a request, so threads may share it.

    `Family.finder` is the finder of a model that understands concepts by itself, or None. A packaged detector is a
    finder too. `Segmenter.find` calls the finder only with concepts that the attributes below allow.

    Attributes:
        takes_text: whether a concept may have a text.
        takes_examples: whether a concept may have boxes of the searched image, alone or beside a text.
        needs_pixels: whether `find` reads the pixels of the image, and not only its embedding.
        nbytes: size in bytes of the weights that are not part of the segmenter's model.
        max_instances: maximum number of instances of one concept.
    """

    takes_text: bool
    takes_examples: bool
    needs_pixels: bool
    nbytes: int
    max_instances: int

    def check_texts(self, texts: Sequence[str]) -> None:
        """Check texts before any work, for example the number of their tokens.

        Raises:
            BadInput: the finder cannot search for a text. The column of the error is `input_text`.
        """
        ...

    def find(
        self,
        segmenter: Segmenter,
        image: EmbeddedImage,
        concepts: Sequence[Concept],
        thresholds: Thresholds,
        call: Call,
    ) -> list[Instances]:
        """Find the instances of concepts in one image. The image is encoded already.

        Args:
            segmenter: the model that encoded the image. `segmenter.segment` decodes prompts. A network of the finder
                runs inside `segmenter.run(work, call)`, which queues the work fairly in an endpoint.
            image: the image. `image.embedding.features` are the feature maps of `Family.embed`.
            concepts: at least one concept.
            thresholds: the filters.
            call: context of the request. Check it between pieces of work.

        Returns:
            The instances of each concept, in the order of the concepts.

        Raises:
            BadInput: a concept cannot be searched for. The column of the error is `input_text` or `input_exemplars`.
            Overloaded, DeadlineExceeded, ClientDisconnected: the request must stop (see `Call.check`).
        """
        ...
