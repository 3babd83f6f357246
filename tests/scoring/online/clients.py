"""Call the endpoint with another project's published client, and print what the client returns as JSON.

Usage: .venv/clients/bin/python clients.py roboflow|livepeer URL IMAGE KEY
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path


def roboflow(url: str, image: str, key: str) -> object:
    """Segment an image with Roboflow's client in several ways."""
    from inference_sdk import InferenceHTTPClient

    client = InferenceHTTPClient(api_url=url, api_key=key)
    prompts = [
        {"points": [{"x": 110, "y": 80, "positive": True}]},
        {"box": {"x": 110, "y": 80, "width": 84, "height": 84}},
    ]
    return {
        "polygons": client.sam2_segment_image(image, prompts=prompts, sam2_version_id="hiera_small"),
        "rle": client.sam2_segment_image(image, prompts=prompts, mask_input_format="rle", multimask_output=False),
        "nothing": client.sam2_segment_image(image),
        "many": client.sam2_segment_image([image, image], prompts=prompts[:1]),
    }


def livepeer(url: str, image: str, key: str) -> object:
    """Segment an image with Livepeer's client, and request an unknown model."""
    from livepeer_ai import Livepeer
    from livepeer_ai.models import errors

    client = Livepeer(http_bearer=key, server_url=url)
    request = {
        "image": {"file_name": "disc.png", "content": Path(image).read_bytes()},
        "model_id": "",
        "point_coords": "[[110, 80]]",
        "point_labels": "[1]",
        "return_logits": False,
    }
    with client:
        response = client.generate.segment_anything2(request=request).masks_response
        try:
            client.generate.segment_anything2(request={**request, "model_id": "who/knows", "image": request["image"]})
            refused = None
        except errors.HTTPError as error:
            refused = error.data.detail.msg
    return {"masks": response.masks, "scores": response.scores, "logits": response.logits, "refused": refused}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps({"roboflow": roboflow, "livepeer": livepeer}[sys.argv[1]](*sys.argv[2:])))
