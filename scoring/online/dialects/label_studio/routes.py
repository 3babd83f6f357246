"""Routes of an ML backend of Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from sam_endpoint.model import masks
from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, kind
from sam_endpoint.model.everything import Grid
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse, JsonRoute
from sam_endpoint.scoring.online.dialects.best_masks import best_masks
from sam_endpoint.scoring.online.dialects.label_studio.config import Control, LabelConfig, read_config
from sam_endpoint.scoring.online.dialects.label_studio.projects import Project, Projects, embed_task_image
from sam_endpoint.scoring.online.dialects.label_studio.prompts import MarkedObject, read_marks
from sam_endpoint.scoring.online.dialects.label_studio.results import results
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG
from sam_endpoint.scoring.online.served_model import ServedModel

MAX_TEXT = 2000  # characters of an id, a host or a token
router = APIRouter(tags=["Label Studio"], route_class=JsonRoute)


class SetupBody(BaseModel):
    """The request that Label Studio sends when a user connects the endpoint to a project."""

    model_config = ConfigDict(extra="ignore")
    project: str = Field("", max_length=MAX_TEXT)
    hostname: str | None = Field(None, max_length=MAX_TEXT)
    access_token: str | None = Field(None, max_length=MAX_TEXT)


class TasksBody(BaseModel):
    """Tasks of a project."""

    model_config = ConfigDict(extra="ignore")
    tasks: list[dict[str, Any]]
    label_config: str
    project: str | None = Field(None, max_length=MAX_TEXT)


class PredictBody(TasksBody):
    """Tasks to predict. An interactive request has the annotator's marks in `params.context`."""

    params: dict[str, Any] | None = None


CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"><Label value="disc"/>'
    "</BrushLabels></View>"
)
EXAMPLE = {
    "tasks": [{"id": 1, "data": {"image": f"data:image/png;base64,{EXAMPLE_PNG}"}}],
    "label_config": CONFIG,
    "params": {
        "context": {
            "result": [
                {
                    "type": "keypointlabels",
                    "to_name": "image",
                    "is_positive": 1,
                    "value": {"x": 50, "y": 50, "keypointlabels": ["disc"]},
                }
            ]
        }
    },
}


@router.post("/setup", summary="Connect a project")
def setup(request: Request, body: SetupBody) -> dict[str, Any]:
    """Remember the project's host and access token, and return the version of the model."""
    context = context_of(request.scope)
    if body.hostname:
        projects: Projects = request.app.state.projects
        projects.add(context.tenant or "", body.project, Project(body.hostname, body.access_token or ""))
    return {"model_version": _version(request.app.state.catalog.get())}


@router.post("/webhook", status_code=201, summary="Accept an event")
def webhook(request: Request) -> dict[str, Any]:
    """Accept an event and ignore it. The endpoint does not learn from annotations."""
    return {}


@router.post("/predict", response_model=None, summary="Predict the results of tasks")
def predict(
    request: Request, body: Annotated[PredictBody, Body(openapi_examples={"a disc": {"value": EXAMPLE}})]
) -> JSONResponse:
    """Segment the objects that the annotator marked in each task, or every object if the request has no marks.

    If a task's image cannot be read, its prediction has the reason in `error` and no `result`; the other tasks are
    answered. A request with marks on a single task fails instead.
    """
    context, catalog = context_of(request.scope), request.app.state.catalog
    served: ServedModel = catalog.get()
    engine, config = served.engine_for(context), read_config(body.label_config)
    served.limits.check_rows(len(body.tasks))
    project = _project(request, body.project)
    marked_context = (body.params or {}).get("context")
    marks = None if marked_context is None else read_marks(marked_context, engine.max_prompts)
    grid = served.defaults.read({}).grid
    if marks is None:
        served.limits.check_points(len(body.tasks), grid.count)
    else:
        served.limits.check_prompts(len(body.tasks) * len(marks))
    targets = None if marks is None else [(marked, config.control(marked.to_name, marked.label)) for marked in marks]
    predictions: list[dict[str, Any]] = []
    for task in body.tasks:
        try:
            task_results = list(_task_results(engine, task, config, project, targets, grid, context.call))
        except BadInput as error:
            if targets is not None and len(body.tasks) == 1:
                raise  # Label Studio tells the annotator that the request failed
            # Label Studio logs a prediction without results, stores nothing for the task, and asks again another time.
            predictions.append({"error": str(error)})
            continue
        scores = [result["score"] for result in task_results]
        predictions.append(
            {
                "result": task_results,
                "score": sum(scores) / len(scores) if scores else 0.0,
                "model_version": _version(served),
            }
        )
    return ChunkedJsonResponse({"results": predictions}, headers=served.headers)


@router.post("/embed_tasks", response_model=None, summary="Compute the embeddings of the images of tasks")
def embed_tasks(request: Request, body: TasksBody) -> Response:
    """Encode the images of tasks before annotators click on them.

    If an image cannot be read, the endpoint encodes the other images, and `errors` names the task of the image.
    """
    context = context_of(request.scope)
    served: ServedModel = request.app.state.catalog.get()
    engine, config = served.engine_for(context), read_config(body.label_config)
    served.limits.check_rows(len(body.tasks))
    project, embedded, errors = _project(request, body.project), 0, []
    for number, task in enumerate(body.tasks):
        for to_name in config.images:
            context.call.check()
            try:
                _embed(engine, task, config, to_name, project, context.call)
                embedded += 1
            except BadInput as error:
                errors.append({"task": number, "error": str(error)})
    return ChunkedJsonResponse({"embedded": embedded, "errors": errors}, headers=served.headers)


def _task_results(
    engine: Engine,
    task: dict[str, Any],
    config: LabelConfig,
    project: Project | None,
    targets: list[tuple[MarkedObject, Control]] | None,
    grid: Grid,
    call: Call,
) -> Iterator[dict[str, Any]]:
    """Yield the results of one task: of the marked objects with the tags for their masks, or of every object."""
    if targets is None:
        control = config.controls[0]
        image = _embed(engine, task, config, control.to_name, project, call)
        # If there are several labels, the objects have no label, and the annotator chooses their labels.
        label = control.labels[0] if len(control.labels) == 1 else None
        for segmented in engine.everything(image, grid, call=call):
            yield from results(masks.from_rle(segmented.rle), segmented.score, control, label, call)
        return
    # The endpoint reads each image once, even if several objects are marked on the image.
    names = dict.fromkeys(control.to_name for _, control in targets)
    images = {name: _embed(engine, task, config, name, project, call) for name in names}
    for marked, control in targets:
        image = images[control.to_name]
        (best,) = best_masks(engine, image, [marked.prompt(image.size)], multimask_output=True, call=call)
        label = marked.label if marked.label in control.labels else None
        yield from results(best.mask, best.score, control, label, call)


def _embed(
    engine: Engine, task: dict[str, Any], config: LabelConfig, to_name: str, project: Project | None, call: Call
) -> EmbeddedImage:
    data = task.get("data")
    if not isinstance(data, dict):
        raise BadInput("tasks", 'tasks {"data": {...}}', kind(data))
    return embed_task_image(engine, data.get(config.images[to_name]), project, call)


def _project(request: Request, project_id: str | None) -> Project | None:
    projects: Projects = request.app.state.projects
    return projects.get(context_of(request.scope).tenant or "", project_id or "")


def _version(served: ServedModel) -> str:
    return str(served.origin.get("version") or served.name)
