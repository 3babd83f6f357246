"""Renders: pictures of procedural meshes with exact masks, drawn by Blender, as training images."""
