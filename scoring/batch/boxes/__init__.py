"""Read boxes from YOLO text files, a COCO JSON file or Pascal VOC XML files."""

from __future__ import annotations

from pathlib import Path

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes import coco, voc, yolo
from sam_endpoint.scoring.batch.boxes.found import Boxes, Detection, ImageBoxes, Matched

__all__ = ["Boxes", "Detection", "ImageBoxes", "Matched", "read"]


def read(path: Path, without: Path | None = None) -> Boxes:
    """Read a COCO .json file, or a folder of YOLO .txt or Pascal VOC .xml files named like the images.

    Args:
        path: the file or folder.
        without: a folder in it that is skipped, such as that of the output.

    Raises:
        BadData: the path contains no such files, or of both kinds, or the COCO file is malformed.
    """
    if not path.is_dir():
        if path.suffix.lower() == ".json":
            return coco.read(path)
        raise BadData(f"'{path}': expected a COCO .json or a folder of .txt (YOLO) or .xml (Pascal VOC) files")
    xml_files, text_files = voc.label_files(path, without), yolo.label_files(path, without)
    if not xml_files and not text_files:
        raise BadData(f"'{path}' holds no .txt (YOLO) and no .xml (Pascal VOC) files")
    boxes = voc.read(path, xml_files)
    if xml_files and not yolo.used_classes(text_files):  # text files without boxes are notes and lists
        return boxes
    if boxes.names:
        raise BadData(
            f"'{path}' holds boxes in .xml files, such as '{xml_files[0].name}', and in .txt files, such as "
            f"'{text_files[0].name}'; move one kind to a folder of its own"
        )
    return yolo.read(path, text_files)
