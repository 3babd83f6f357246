"""The input of a batch job: tables, folders of tables, or images, by path, pattern or fsspec URL."""

from .listing import IMAGES, TABLES, image_files
from .source import ImageFiles, Source, TableFiles, find

__all__ = ["IMAGES", "TABLES", "ImageFiles", "Source", "TableFiles", "find", "image_files"]
