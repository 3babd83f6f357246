"""Read bounding boxes from label files: YOLO text files, a COCO JSON file or Pascal VOC XML files."""

from __future__ import annotations

from pathlib import Path

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes import coco, voc, yolo
from sam_endpoint.scoring.batch.boxes.box_labels import BoxLabels, Detection, ImageBoxes, MatchedBoxes

__all__ = ["BoxLabels", "Detection", "ImageBoxes", "MatchedBoxes", "read"]


def read(path: Path, without: Path | None = None) -> BoxLabels:
    """Read the boxes in label files.

    Args:
        path: a COCO .json file, or a folder of YOLO .txt or Pascal VOC .xml files that have the names of the images.
        without: a subfolder to skip, such as the output folder.

    Returns:
        The categories, and the boxes of each listed image.

    Raises:
        BadData: the folder has no label files, or has both YOLO and Pascal VOC files, or the COCO file is malformed.

    Example:
        >>> import json
        >>> from tempfile import TemporaryDirectory
        >>> content = {
        ...     "images": [{"id": 1, "file_name": "a.png"}],
        ...     "annotations": [{"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40]}],
        ...     "categories": [{"id": 3, "name": "cup"}],
        ... }
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "instances.json").write_text(json.dumps(content))
        ...     labels = read(Path(folder, "instances.json"))
        >>> labels.names
        {3: 'cup'}
        >>> (detection,) = labels.of("a.png", size=(100, 200)).detections
        >>> detection.box.tolist()
        [10.0, 20.0, 40.0, 60.0]
    """
    if not path.is_dir():
        if path.suffix.lower() == ".json":
            return coco.read(path)
        raise BadData(f"'{path}': expected a COCO .json or a folder of .txt (YOLO) or .xml (Pascal VOC) files")
    xml_files, text_files = voc.label_files(path, without), yolo.label_files(path, without)
    if not xml_files and not text_files:
        raise BadData(f"'{path}' has no .txt (YOLO) and no .xml (Pascal VOC) files")
    boxes = voc.read(path, xml_files)
    if xml_files and not yolo.used_classes(text_files):  # text files without boxes are not labels but notes
        return boxes
    if boxes.names:
        raise BadData(
            f"'{path}' has boxes both in .xml files, such as '{xml_files[0].name}', and in .txt files, such as "
            f"'{text_files[0].name}'; keep each format in its own folder"
        )
    return yolo.read(path, text_files)
