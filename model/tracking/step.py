"""Track the objects of one frame: recall, decode and memorize them, several objects at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..call import Call
from ..families.sam2_video import DecodedObjects, Recall, Sam2Video
from ..halving import halve_on_out_of_memory
from .frame_prompts import as_points
from .state import FrameMemory, ObjectMemory, TrackState
from .values import TrackedFrame, TrackedObject, TrackPrompt

Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[Callable[[], Any]], Any]  # runs a piece of work, as `Segmenter.run`


@dataclass(frozen=True)
class Task:
    """The work on one object in one frame.

    Attributes:
        object: number of the object.
        prompt: the prompt on the object in this frame, or None.
        memory: what is remembered of the object; None if the prompt alone decides, as on first frames.
    """

    object: int
    prompt: TrackPrompt | None
    memory: ObjectMemory | None


@dataclass(frozen=True)
class Place:
    """A frame in the video.

    Attributes:
        frame: number of the frame.
        size: (height, width) of the frame in pixels.
        backward: whether frames are tracked backward.
        max_pointers: number of object pointers of frames without a prompt that an object attends to, plus 1.
    """

    frame: int
    size: tuple[int, int]
    backward: bool
    max_pointers: int

    def earlier(self, distance: int) -> int:
        """Return the number of the frame that was tracked `distance` frames earlier."""
        return self.frame + distance if self.backward else self.frame - distance


@torch.inference_mode()
def track_frame(
    family: Sam2Video,
    features: tuple[Tensor, ...],
    state: TrackState,
    prompts: Mapping[int, TrackPrompt],
    place: Place,
    max_objects: int,
    run: Run,
    call: Call,
) -> TrackedFrame:
    """Track all objects in one frame.

    The frame of a prompt becomes a *prompted frame* of the object, and the prompt alone decides the mask. If the object
    was tracked in this frame before, the prompt corrects the mask, and the object's memory counts too. In a prompted
    frame, an object without a new prompt keeps its mask.

    Args:
        family: the model.
        features: feature maps of the frame, as `Family.embed` returns them, on the model's device.
        state: what is remembered; it is updated once all objects are tracked.
        prompts: checked prompts on this frame, by the object's number.
        place: the frame.
        max_objects: largest number of objects that are processed together.
        run: runs each piece of the work.
        call: context of the request; it divides the objects into pieces.
    """
    frame = place.frame
    tasks, memories = [], {}
    for number in sorted({*state.objects, *prompts}):
        memory = state.objects.get(number, ObjectMemory({}, {}))
        prompt = prompts.get(number)
        if prompt is None and frame in memory.prompted:
            memories[number] = memory.prompted[frame]
        else:
            corrects = frame in memory.tracked or (prompt is not None and prompt.corrects and bool(memory.prompted))
            is_first = prompt is not None and not corrects
            tasks.append(Task(number, prompt, None if is_first else memory))
    decoded: dict[int, DecodedObjects] = {}
    groups = defaultdict(list)
    for task in tasks:
        groups[_layout(task, family, place)].append(task)
    for group in groups.values():
        results = _in_pieces(partial(_decode, family, features, place), group, max_objects, run, call)
        decoded.update(zip((task.object for task in group), results, strict=True))
    prompted = [task.prompt is not None for task in tasks]
    if family.binarizes_together:
        prompted = [any(prompted)] * len(tasks)
    items = list(zip(tasks, prompted, strict=True))
    new_memories = _in_pieces(partial(_memorize, family, features[-1], decoded), items, max_objects, run, call)
    memories.update(zip((task.object for task in tasks), new_memories, strict=True))
    _remember(family, state, tasks, memories, place)
    objects = [
        TrackedObject(number, memory.logits, torch.tensor(memory.visible).sigmoid().item())
        for number, memory in sorted(memories.items())
        if memory.logits is not None
    ]
    return TrackedFrame(frame, place.size, objects)


def _remember(
    family: Sam2Video, state: TrackState, tasks: Iterable[Task], memories: Mapping[int, FrameMemory], place: Place
) -> None:
    """Add the memories of a frame to the state."""
    for task in tasks:
        memory = state.objects.get(task.object, ObjectMemory({}, {}))
        is_prompted = task.memory is None
        new = memories[task.object] if is_prompted else replace(memories[task.object], logits=None)
        state.objects[task.object] = memory.remember(place.frame, new, is_prompted, family)
    state.model, state.size = family.memory_fingerprint, place.size
    state.frame, state.backward = place.frame, place.backward


def _in_pieces(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], max_items: int, run: Run, call: Call
) -> list[Result]:
    """Run work on items in pieces of at most `max_items`, so that other requests get their turn in between."""
    results: list[Result] = []
    for piece in call.pieces(len(items), max_items):
        results += run(partial(halve_on_out_of_memory, work, items[piece]))
    return results


def _layout(task: Task, family: Sam2Video, place: Place) -> tuple[int, ...]:
    """Return the shapes of an object's inputs. Objects of one layout can form a batch."""
    if task.prompt is not None and task.prompt.mask is not None:
        return (-1,)
    points = 0 if task.prompt is None else len(as_points(task.prompt)[0])
    if task.memory is None:
        return (points,)
    memories, pointers = _recalled(task.memory, family, place)
    return points, len(memories), len(pointers)


def _recalled(
    memory: ObjectMemory, family: Sam2Video, place: Place
) -> tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]:
    """Return the memories and the object pointers that an object attends to, each with its distance."""
    chosen = _closest(memory.prompted, place.frame, family.max_prompted)
    memories = [(0, memory.prompted[number].features) for number in chosen]
    for distance in range(family.num_memories, 0, -1):
        number = place.earlier(distance)
        remembered = memory.tracked.get(number)
        if remembered is None and number not in chosen:
            remembered = memory.prompted.get(number)
        if remembered is not None:
            memories.append((distance, remembered.features))
    sign = -1 if place.backward else 1
    pointers = [
        (sign * (place.frame - number), prompted.pointer)
        for number, prompted in memory.prompted.items()
        if sign * (place.frame - number) >= 0
    ]
    for distance in range(1, place.max_pointers):
        if tracked := memory.tracked.get(place.earlier(distance)):
            pointers.append((distance, tracked.pointer))
    return [(distance, features) for distance, features in memories if features is not None], pointers


def _closest(prompted: Mapping[int, FrameMemory], frame: int, count: int | None) -> list[int]:
    """Return the prompted frames that an object attends to: one on each side, and then the closest, up to `count`."""
    if count is None or len(prompted) <= count:
        return list(prompted)
    before = [number for number in prompted if number < frame]
    after = [number for number in prompted if number >= frame]
    chosen = [max(before)] if before else []
    chosen += [min(after)] if after else []
    others = sorted((number for number in prompted if number not in chosen), key=lambda number: abs(number - frame))
    return chosen + others[: count - len(chosen)]


def _decode(
    family: Sam2Video, features: tuple[Tensor, ...], place: Place, tasks: Sequence[Task]
) -> list[DecodedObjects]:
    """Decode objects of one layout."""
    first = tasks[0]
    device = features[-1].device
    if first.prompt is not None and first.prompt.mask is not None:
        prompt_masks = [task.prompt.mask for task in tasks if task.prompt is not None and task.prompt.mask is not None]
        masks = torch.stack([family.prepare_mask(torch.from_numpy(mask).to(device)) for mask in prompt_masks])
        return _split(family.use_masks(features, masks))
    points = labels = None
    if first.prompt is not None:
        factors = torch.tensor(family.scale(place.size))
        arrays = [as_points(task.prompt) for task in tasks if task.prompt is not None]
        points = torch.stack([torch.from_numpy(own) * factors for own, _ in arrays]).to(device)
        labels = torch.stack([torch.from_numpy(own) for _, own in arrays]).to(device)
    if first.memory is None:
        image = family.mark(features[-1]).expand(len(tasks), -1, -1, -1)
    else:
        image = family.condition(features[-1], _recall(family, tasks, place, device))
    return _split(family.decode_objects((*features[:-1], image), points, labels, first.memory is None))


def _recall(family: Sam2Video, tasks: Sequence[Task], place: Place, device: torch.device) -> Recall:
    """Stack what objects of one layout remember."""
    recalled = [_recalled(task.memory, family, place) for task in tasks if task.memory is not None]
    (distances, memories), (pointer_distances, pointers) = (
        (
            torch.tensor([[distance for distance, _ in own[kind]] for own in recalled], device=device),
            torch.stack([torch.stack([tensor.to(device) for _, tensor in own[kind]]) for own in recalled]),
        )
        for kind in range(2)
    )
    return Recall(memories, distances, pointers, pointer_distances, max(1, place.max_pointers - 1))


def _split(decoded: DecodedObjects) -> list[DecodedObjects]:
    """Divide p decoded objects into p times one object."""
    large = [None] * len(decoded.logits) if decoded.large is None else decoded.large.split(1)
    parts = zip(decoded.logits.split(1), decoded.pointers.split(1), decoded.visible.split(1), large, strict=True)
    return [DecodedObjects(*part) for part in parts]


def _memorize(
    family: Sam2Video, features: Tensor, decoded: Mapping[int, DecodedObjects], items: Sequence[tuple[Task, bool]]
) -> list[FrameMemory]:
    """Encode the memories of objects.

    Each memory owns its tensors. A view would keep the tensors of the whole batch.
    """
    parts = [decoded[task.object] for task, _ in items]
    large = torch.cat([family.enlarge(part.logits) if part.large is None else part.large for part in parts])
    visible = torch.cat([part.visible for part in parts])
    binarize = torch.tensor([is_prompted for _, is_prompted in items], device=large.device)
    memories = family.memorize(features, large, visible, binarize)
    return [
        FrameMemory(part.pointers[0].clone(), memory.clone(), part.logits[0].clone(), part.visible.item())
        for part, memory in zip(parts, memories, strict=True)
    ]
