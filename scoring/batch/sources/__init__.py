"""Read the input of a batch job: tables or images, given by path, glob pattern or fsspec URL."""

from .listing import IMAGES, TABLES, image_files
from .source import ImageFiles, Source, TableFiles, find

__all__ = ["IMAGES", "TABLES", "ImageFiles", "Source", "TableFiles", "find", "image_files"]
