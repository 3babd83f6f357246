"""Call the endpoint with another project's published client, and print what the client returns as JSON.

Usage: .venv/clients/bin/python clients.py roboflow|sam3|livepeer URL IMAGE KEY
"""

from __future__ import annotations

import asyncio
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


def sam3(url: str, image: str, key: str) -> object:
    """Call all methods of Roboflow's client for SAM 3, and read the answers with supervision."""
    from inference_sdk import InferenceConfiguration, InferenceHTTPClient
    from inference_sdk.http.errors import HTTPCallErrorError
    from PIL import Image
    from supervision import Detections

    client = InferenceHTTPClient(api_url=url, api_key=key)
    texts = [{"type": "text", "text": "cups"}, {"type": "text", "text": "spoon", "output_prob_thresh": 0.1}]
    box = {"x": 243, "y": 95, "width": 55, "height": 50}
    clicks = [{"points": [{"x": 268, "y": 120, "positive": True}]}]
    shown = [{"type": "visual", "boxes": [box], "box_labels": [1], "client": "sends unknown keys"}]

    async def call_async() -> list[object]:
        return [
            await client.sam3_concept_segment_async(image, shown, format="rle"),
            await client.sam3_visual_segment_async([image, image], clicks, mask_input_format="rle"),
            await client.sam3_embed_image_async([image, image], image_id="coins"),
        ]

    results: dict[str, object] = {
        "shown": client.sam3_concept_segment(image, shown),
        "many": client.sam3_concept_segment([image, image], shown, format="rle"),
        "clicked": client.sam3_visual_segment(image, clicks),
        "nothing": client.sam3_visual_segment(image),
        "embedded": client.sam3_embed_image(image, image_id="coins"),
        "async": asyncio.run(call_async()),
    }
    with client.use_configuration(InferenceConfiguration(max_batch_size=2)):
        results["batch"] = client.sam3_concept_segment([image, image], shown, format="rle")
        results["embedded batch"] = client.sam3_embed_image([image, image])
    try:
        texts_result = client.sam3_concept_segment(image, texts, output_prob_thresh=0.0, nms_iou_threshold=0.9)
        results["texts"] = texts_result
    except HTTPCallErrorError as error:
        results["texts"] = [error.status_code, error.api_message]
    for name in ("shown", "texts"):
        if isinstance(results[name], dict):
            detections = Detections.from_sam3(results[name], resolution_wh=Image.open(image).size)
            results[f"{name} by supervision"] = {
                "area": detections.area.tolist(),
                "xyxy": detections.xyxy.tolist(),
                "confidence": detections.confidence.tolist(),
                "class_id": detections.class_id.tolist(),
            }
    return results


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
    print(json.dumps({"roboflow": roboflow, "sam3": sam3, "livepeer": livepeer}[sys.argv[1]](*sys.argv[2:])))
