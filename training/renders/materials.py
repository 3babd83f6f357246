"""Random materials as Blender's shader nodes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy

from sam_endpoint.training.renders.meshes import Rng

Color = tuple[float, float, float, float]


class Materials:
    """Makes random materials.

    Args:
        rng: The random generator.
        pictures: Photographs that some materials show; if there are none, these materials have drawn patterns.
    """

    def __init__(self, rng: Rng, pictures: Sequence[Path]) -> None:
        self.rng, self.pictures = rng, pictures

    def make(self, kinds: Sequence[str]) -> Any:
        """Return a material of one of the kinds."""
        kind = kinds[int(self.rng.integers(len(kinds)))]
        material = bpy.data.materials.new(kind)
        material.use_nodes = True
        self.nodes, self.links = material.node_tree.nodes, material.node_tree.links
        self.shader = self.nodes["Principled BSDF"].inputs
        getattr(self, f"_{kind}")()
        return material

    def color(self, saturation: tuple[float, float] = (0.0, 0.9), value: tuple[float, float] = (0.05, 0.9)) -> Color:
        """Return a random colour with a saturation and a value within bounds."""
        red, green, blue = colorsys.hsv_to_rgb(
            self.rng.random(), self.rng.uniform(*saturation), self.rng.uniform(*value)
        )
        return red, green, blue, 1.0

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            self.shader[name.replace("_", " ")].default_value = value

    def _uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _pattern(self, kind: str, scale: float, first: Color, second: Color, bump: float = 0.0) -> None:
        """Give the surface two colours in a pattern of a texture node, and bumps of the same pattern."""
        texture = self.nodes.new(f"ShaderNodeTex{kind}")
        texture.inputs["Scale"].default_value = scale
        if kind == "Wave":
            texture.inputs["Distortion"].default_value = self._uniform(2, 12)
        coordinates = self.nodes.new("ShaderNodeTexCoord")
        self.links.new(coordinates.outputs["Object"], texture.inputs["Vector"])
        mix = self.nodes.new("ShaderNodeMixRGB")
        mix.inputs["Color1"].default_value, mix.inputs["Color2"].default_value = first, second
        value = texture.outputs["Distance" if kind == "Voronoi" else "Fac"]
        self.links.new(value, mix.inputs["Fac"])
        self.links.new(mix.outputs["Color"], self.shader["Base Color"])
        if bump:
            node = self.nodes.new("ShaderNodeBump")
            node.inputs["Strength"].default_value = bump
            self.links.new(value, node.inputs["Height"])
            self.links.new(node.outputs["Normal"], self.shader["Normal"])

    def _metal(self) -> None:
        self._set(Metallic=1.0, Roughness=self._uniform(0.05, 0.5))
        self.shader["Base Color"].default_value = self.color((0, 0.5), (0.5, 0.95))

    def _glass(self) -> None:
        self._set(Transmission=1.0, Roughness=self._uniform(0, 0.15), IOR=self._uniform(1.3, 1.5))
        self.shader["Base Color"].default_value = self.color((0, 0.5), (0.7, 1.0))

    def _ceramic(self) -> None:
        self._set(Roughness=self._uniform(0.1, 0.4), Clearcoat=self._uniform(0, 1))
        self.shader["Base Color"].default_value = color = self.color((0, 0.6), (0.4, 0.95))
        if self.rng.random() < 0.4:
            self._pattern("Wave", self._uniform(0.5, 4), color, self.color())

    def _plastic(self) -> None:
        self._set(Roughness=self._uniform(0.1, 0.7))
        self.shader["Base Color"].default_value = self.color((0.2, 0.95))

    def _paint(self) -> None:
        self._set(Roughness=self._uniform(0.1, 0.3), Clearcoat=1.0)
        self.shader["Base Color"].default_value = self.color((0.0, 0.95))

    def _rubber(self) -> None:
        self._set(Roughness=0.8)
        self.shader["Base Color"].default_value = self.color((0, 0.1), (0.01, 0.08))

    def _paper(self) -> None:
        self._set(Roughness=0.9)
        self.shader["Base Color"].default_value = self.color((0, 0.15), (0.7, 0.95))

    def _wood(self) -> None:
        self._set(Roughness=self._uniform(0.3, 0.8))
        light, depth = self._uniform(0.15, 0.6), self._uniform(0.3, 0.8)
        brown = (light, light * 0.6, light * 0.3, 1.0)
        dark = (brown[0] * depth, brown[1] * depth, brown[2] * depth, 1.0)
        self._pattern("Wave", self._uniform(0.5, 3), brown, dark, 0.1)

    def _cloth(self) -> None:
        self._set(Roughness=1.0, Sheen=self._uniform(0, 1), Specular=0.1)
        kind = str(self.rng.choice(["Checker", "Wave", "Noise", "Voronoi"]))
        self._pattern(kind, self._uniform(2, 12), self.color(), self.color(), self._uniform(0.1, 0.6))

    def _skin(self) -> None:
        self._set(Roughness=self._uniform(0.3, 0.9), Subsurface=0.02)
        first = self.color((0.1, 0.9))
        change = self._uniform(0.3, 1.5)
        second = (min(1.0, first[0] * change), min(1.0, first[1] * change * 0.9), first[2] * 0.8, 1.0)
        self._pattern(
            str(self.rng.choice(["Noise", "Voronoi"])), self._uniform(1, 8), first, second, self._uniform(0, 0.4)
        )

    def _leaf(self) -> None:
        self._set(Roughness=self._uniform(0.3, 0.7))
        green = self._uniform(0.1, 0.6)
        self.shader["Base Color"].default_value = (
            green * self._uniform(0.2, 1),
            green,
            green * self._uniform(0.1, 0.5),
            1,
        )

    def _photograph(self) -> None:
        """Show a part of a photograph."""
        if not self.pictures:
            self._cloth()
            return
        self._set(Roughness=self._uniform(0.2, 1))
        texture = self.nodes.new("ShaderNodeTexImage")
        texture.image = bpy.data.images.load(
            str(self.pictures[int(self.rng.integers(len(self.pictures)))]), check_existing=True
        )
        texture.projection, texture.projection_blend = "BOX", 0.2
        coordinates, mapping = self.nodes.new("ShaderNodeTexCoord"), self.nodes.new("ShaderNodeMapping")
        mapping.inputs["Scale"].default_value = [self._uniform(0.15, 1.0)] * 3
        mapping.inputs["Location"].default_value = self.rng.random(3).tolist()
        self.links.new(coordinates.outputs["Object"], mapping.inputs["Vector"])
        self.links.new(mapping.outputs["Vector"], texture.inputs["Vector"])
        self.links.new(texture.outputs["Color"], self.shader["Base Color"])
