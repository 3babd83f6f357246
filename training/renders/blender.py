"""Render pictures of random things with Blender, and write their masks as a COCO file.

blender --background --python-exit-code 1 --python training/renders/blender.py -- --output renders --count 400

The folder then fits `sam-endpoint train --photos`. Pictures that exist are not rendered again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # Blender's Python does not know this project

from sam_endpoint.training.renders.layout import arrange, coco_annotations
from sam_endpoint.training.renders.materials import Materials
from sam_endpoint.training.renders.meshes import Part, Rng

EDGE = 384  # pixels, the longest edge of a picture
SAMPLES = 24  # light paths of a pixel
RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9)
GROUNDS = ("photograph", "photograph", "photograph", "wood", "cloth", "skin", "ceramic", "plastic")


def render(number: int, seed: int, output: Path, textures: list[Path]) -> None:
    """Render a picture, and write its annotations beside it.

    Args:
        number: The number of the picture in its sequence.
        seed: The seed of an endless sequence of pictures.
        output: The folder of the picture.
        textures: Photographs on the surfaces of things.
    """
    rng = np.random.default_rng([seed, number])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    materials = Materials(rng, textures)
    things, extent = arrange(rng, int(rng.choice([2, 5, 10, 18], p=[0.2, 0.35, 0.3, 0.15])))
    owners: list[int] = []  # the thing of each piece; parts of one material are one piece
    for thing, parts in enumerate(things):
        for part in parts:
            if part.materials:
                material = materials.make(part.materials)
                owners.append(thing)
            _add_mesh(part, material).pass_index = len(owners)
    _add_ground(rng, materials, extent)
    _add_light(rng, scene)
    _add_camera(rng, scene, extent)
    shorter = round(EDGE / rng.choice(RATIOS))
    width, height = (EDGE, shorter) if rng.random() < 0.7 else (shorter, EDGE)
    labels = _draw(scene, width, height, output / f"{number:06d}.jpg")
    content = {"width": width, "height": height, "annotations": coco_annotations(labels, owners)}
    unfinished = output / ".unfinished"
    unfinished.write_text(json.dumps(content))
    unfinished.replace(_record(output, number))


def _record(output: Path, number: int) -> Path:
    return output / f"{number:06d}.json"


def _add_mesh(part: Part, material: Any) -> Any:
    mesh = bpy.data.meshes.new("part")
    mesh.from_pydata(part.points.tolist(), [], part.faces)
    mesh.update()
    mesh.materials.append(material)
    item = bpy.data.objects.new("part", mesh)
    bpy.context.scene.collection.objects.link(item)
    if part.smooth:
        rounding = item.modifiers.new("round", "SUBSURF")
        rounding.render_levels = 2
        mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    else:
        bevel = item.modifiers.new("bevel", "BEVEL")
        bevel.width, bevel.segments = 0.008, 2
    return item


def _add_ground(rng: Rng, materials: Materials, extent: float) -> None:
    """Add a floor, and often a wall behind the things."""
    for is_wall in (False, True):
        if is_wall and rng.random() < 0.5:
            continue
        mesh = bpy.data.meshes.new("ground")
        far = 40.0
        corners = [(-far, -far, 0.0), (far, -far, 0.0), (far, far, 0.0), (-far, far, 0.0)]
        if is_wall:
            distance = extent * rng.uniform(1.1, 3)
            corners = [(-far, distance, 0.0), (far, distance, 0.0), (far, distance, far), (-far, distance, far)]
        mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
        mesh.materials.append(materials.make(GROUNDS))
        bpy.context.scene.collection.objects.link(bpy.data.objects.new("ground", mesh))


def _add_light(rng: Rng, scene: Any) -> None:
    """Light the scene by one of the light probes (CC0) that Blender includes, and often by a lamp."""
    world = bpy.data.worlds.new("world")
    scene.world, world.use_nodes = world, True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    probes = sorted(light.path for light in bpy.context.preferences.studio_lights if light.type == "WORLD")
    environment, mapping = nodes.new("ShaderNodeTexEnvironment"), nodes.new("ShaderNodeMapping")
    environment.image = bpy.data.images.load(probes[int(rng.integers(len(probes)))])
    mapping.inputs["Rotation"].default_value = (0, 0, rng.uniform(0, 2 * np.pi))
    links.new(nodes.new("ShaderNodeTexCoord").outputs["Generated"], mapping.inputs["Vector"])
    links.new(mapping.outputs["Vector"], environment.inputs["Vector"])
    links.new(environment.outputs["Color"], nodes["Background"].inputs["Color"])
    nodes["Background"].inputs["Strength"].default_value = rng.uniform(0.3, 1.1)
    if rng.random() < 0.6:
        lamp = bpy.data.lights.new("lamp", "AREA")
        lamp.energy, lamp.size = rng.uniform(100, 900), rng.uniform(0.3, 4)
        item = bpy.data.objects.new("lamp", lamp)
        item.location = (rng.uniform(-4, 4), rng.uniform(-4, 2), rng.uniform(3, 7))
        _look_at(item, (0, 0, 0))
        scene.collection.objects.link(item)


def _add_camera(rng: Rng, scene: Any, extent: float) -> None:
    """Add a camera that sees most things; some are cut off by the border."""
    camera = bpy.data.cameras.new("camera")
    camera.lens = rng.uniform(30, 85)  # mm, on a sensor of 36 mm
    elevation, turn = rng.uniform(0.15, 1.5), rng.normal(0, 0.5)
    distance = extent * camera.lens / 18 * rng.uniform(0.45, 1.1)
    flat = np.cos(elevation)
    eye = np.array([flat * np.sin(turn), -flat * np.cos(turn), np.sin(elevation)]) * distance
    target = (*rng.normal(0, 0.1 * extent, 2), 0.2)
    item = bpy.data.objects.new("camera", camera)
    item.location = (eye[0], eye[1], eye[2] + 0.2)
    _look_at(item, target)
    scene.collection.objects.link(item)
    scene.camera = item


def _look_at(item: Any, target: tuple[float, float, float]) -> None:
    direction = np.array(target) - np.array(item.location)
    item.rotation_mode = "XYZ"
    flat = float(np.hypot(*direction[:2]))
    item.rotation_euler = (float(np.arctan2(flat, -direction[2])), 0, float(np.arctan2(-direction[0], direction[1])))


def _draw(scene: Any, width: int, height: int, picture: Path) -> NDArray[np.int64]:
    """Render a scene to a JPEG file, and return the pass index of the visible object at each pixel; 0 for others."""
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.max_bounces = SAMPLES, False, 6
    scene.cycles.sample_clamp_direct, scene.cycles.sample_clamp_indirect = 8, 2  # no single bright pixels
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = width, height, 100
    scene.view_settings.view_transform, scene.view_settings.exposure = "Filmic", 0.7
    scene.view_layers[0].use_pass_object_index = True
    scene.use_nodes = True
    nodes = scene.node_tree.nodes
    layers, writer = nodes.new("CompositorNodeRLayers"), nodes.new("CompositorNodeOutputFile")
    composite = nodes.new("CompositorNodeComposite")
    scene.node_tree.links.new(layers.outputs["Image"], composite.inputs["Image"])
    scene.node_tree.links.new(layers.outputs["IndexOB"], writer.inputs[0])
    writer.base_path, writer.format.file_format, writer.format.color_depth = str(picture.parent), "OPEN_EXR", "32"
    writer.file_slots[0].path = ".index-"
    scene.render.image_settings.file_format, scene.render.image_settings.quality = "JPEG", 95
    scene.render.filepath = str(picture)
    bpy.ops.render.render(write_still=True)
    file = picture.parent / f".index-{scene.frame_current:04d}.exr"
    image = bpy.data.images.load(str(file))
    image.colorspace_settings.is_data = True
    values = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(values)
    file.unlink()
    return np.rint(values.reshape(height, width, 4)[::-1, :, 0]).astype(np.int64)  # Blender's first row is the lowest


def main(words: list[str]) -> None:
    """Render the missing pictures, and write instances.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures and instances.json")
    parser.add_argument("--count", type=int, default=400, help="number of pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the pictures (default: %(default)s)")
    parser.add_argument("--textures", type=Path, nargs="*", default=[], help="folders of photographs, for surfaces")
    options = parser.parse_args(words)
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    textures = sorted(file for folder in options.textures for file in folder.resolve().glob("*.jpg"))
    numbers = range(options.count)
    missing = [number for number in numbers if not _record(options.output, number).exists()]
    started = time.monotonic()
    for done, number in enumerate(missing, 1):
        render(number, options.seed, options.output, textures)
        left = (time.monotonic() - started) / done * (len(missing) - done) / 60
        print(f"rendered {done} of {len(missing)} pictures, {left:.0f} min left", file=sys.stderr, flush=True)
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number in numbers:
        record = json.loads(_record(options.output, number).read_text())
        for entry in record.pop("annotations"):
            found.append({**entry, "id": len(found) + 1, "image_id": number, "category_id": 1})
        images.append({"id": number, "file_name": f"{number:06d}.jpg", **record})
    content = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "thing"}]}
    (options.output / "instances.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--") + 1 :])
