"""Train the memory parts of a SAM 2, which let it track objects through videos, on drawn clips."""
