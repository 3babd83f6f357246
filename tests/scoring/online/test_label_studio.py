"""The endpoint as ML backend of a real Label Studio server, and its answers to wrong requests."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from sam_endpoint.model import masks
from tests import pictures
from tests.conftest import ROOT, client_python, free_port, run_with_clients, serve_endpoint, server

KEY = "correct-horse"
READERS = ROOT / "tests" / "scoring" / "batch" / "readers.py"
TOKEN = "5ecre7700000000000000000000000000000beef"
USER = {"Authorization": f"Token {TOKEN}"}
WIDTH, HEIGHT = 240, 160
LABELS = "".join(f'<Label value="{label}"/>' for label in ("coin", "cup", "plate"))
CONFIG = f"""<View>
  <Image name="image" value="$image"/>
  <KeyPointLabels name="point" toName="image" smart="true">{LABELS}</KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true">{LABELS}</RectangleLabels>
  <BrushLabels name="coins" toName="image"><Label value="coin"/></BrushLabels>
  <BrushLabels name="cups" toName="image"><Label value="cup"/></BrushLabels>
  <PolygonLabels name="plates" toName="image"><Label value="plate"/></PolygonLabels>
</View>"""
LEFT, RIGHT = (20, 40, 100, 120), (140, 40, 220, 120)


def two_discs(shade: int) -> bytes:
    """Return a picture of two discs; each shade is another picture."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (214, 204, shade))
    ImageDraw.Draw(image).ellipse(LEFT, fill=(52, 86, 158))
    ImageDraw.Draw(image).ellipse(RIGHT, fill=(150, 40, 60))
    return pictures.to_bytes(image)


@dataclass(frozen=True)
class Served:
    """An endpoint with a key: its URL and its log."""

    url: str
    log: Path

    def encoded(self) -> int:
        """Return how many images it has encoded."""
        lines = requests.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        found = [line for line in lines if line.startswith('sam_stage_seconds_count{stage="encode"}')]
        return int(float(found[0].split()[-1])) if found else 0

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        return requests.post(self.url + path, json=body, headers={"x-api-key": KEY} | headers, timeout=120)

    def mask(self, image: bytes, **row: Any) -> np.ndarray:
        """Return the best mask of `/score` for a row of one prompt."""
        body = {"input_data": [{"image": pictures.to_text(image), **row}], "params": {"mask_encoding": "rle"}}
        (answer,) = self.post("/score", body).json()
        best = max(answer["predictions"][0]["mask_per_prediction"], key=lambda mask: mask["iou_score"])
        return masks.decode(best["encoded_binary_mask"], "rle", (HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("endpoint") / "log"
    with serve_endpoint(log, "--hosts", "localhost", "--public-metrics", "true", SAM_API_KEYS=KEY) as url:
        yield Served(url, log)


@dataclass(frozen=True)
class LabelStudio:
    """A Label Studio server, as its API's users see it, and the file of its log."""

    url: str
    log: Path

    def get(self, path: str) -> Any:
        response = requests.get(self.url + path, headers=USER, timeout=120)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, status: int = 200, body: Any = None, **more: Any) -> Any:
        response = requests.post(self.url + path, headers=USER, json=body, timeout=120, **more)
        assert response.status_code == status, response.text
        return response.json()

    def connect(self, project: int, url: str, **more: Any) -> requests.Response:
        """Connect an ML backend to a project."""
        body = {"url": url, "project": project, "is_interactive": True, "title": "sam", **more}
        return requests.post(f"{self.url}/api/ml", headers=USER, json=body, timeout=60)

    def upload(self, project: int, image: bytes) -> dict[str, Any]:
        """Upload an image; return its task."""
        before = {task["id"] for task in self.get(f"/api/tasks?project={project}")["tasks"]}
        self.post(f"/api/projects/{project}/import", 201, files={"file": ("discs.png", image)})
        (task,) = (task for task in self.get(f"/api/tasks?project={project}")["tasks"] if task["id"] not in before)
        return dict(task)


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    folder, port = tmp_path_factory.mktemp("label-studio"), free_port()
    command = [str(client_python("label-studio").with_name("label-studio")), "start", "--no-browser"]
    command += ["--port", str(port), "--username", "a@example.com", "--password", "secretpw1", "--user-token", TOKEN]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    with server(command, port, "/health", folder / "log", **settings) as url:
        yield LabelStudio(url.replace("127.0.0.1", "localhost"), folder / "log")


@dataclass(frozen=True)
class Project:
    """A project with one image, whose ML backend is the endpoint."""

    label_studio: LabelStudio
    number: int
    backend: int
    image: bytes
    task: dict[str, Any]

    def ask(self, *marks: dict[str, Any], task: int | None = None) -> list[dict[str, Any]]:
        """Return what Label Studio shows an annotator who made these marks."""
        body = {"task": task or self.task["id"], "context": {"result": list(marks)}}
        answer = self.label_studio.post(f"/api/ml/{self.backend}/interactive-annotating", body=body)
        results: list[dict[str, Any]] = answer["data"]["result"]
        return results


@pytest.fixture(scope="module")
def project(label_studio: LabelStudio, served: Served) -> Project:
    number = label_studio.post("/api/projects", 201, {"title": "discs", "label_config": CONFIG})["id"]
    image = two_discs(190)
    task = label_studio.upload(number, image)
    password = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": KEY}
    connected = label_studio.connect(number, served.url, **password)
    assert connected.status_code == 201, connected.text
    state = connected.json()
    assert (state["readable_state"], state["model_version"]) == ("Connected", "sam-tiny")
    return Project(label_studio, number, state["id"], image, task)


def mark(kind: str, label: str, **value: float) -> dict[str, Any]:
    """Return a mark as the editor sends it, from pixels."""
    sides = {"x": WIDTH, "y": HEIGHT, "width": WIDTH, "height": HEIGHT}
    percent = {name: number / sides[name] * 100 for name, number in value.items()}
    return {
        "id": "mark",
        "from_name": "box" if kind == "rectanglelabels" else "point",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**percent, kind: [label]},
    }


def click(x: float, y: float, label: str = "coin", positive: int = 1) -> dict[str, Any]:
    return {**mark("keypointlabels", label, x=x, y=y, width=1), "is_positive": positive}


def rectangle(box: tuple[int, int, int, int], label: str) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return mark("rectanglelabels", label, x=x1, y=y1, width=x2 - x1, height=y2 - y1)


@pytest.fixture
def decoded(tmp_path: Path) -> Any:
    """Return a function that reads brush results with Label Studio's own package."""

    def decode(results: list[dict[str, Any]]) -> list[np.ndarray]:
        file = tmp_path / "tasks.json"
        file.write_text(json.dumps([{"predictions": [{"result": results}]}]))
        found = []
        for _, pixels in run_with_clients(READERS, "label-studio", file):
            mask = np.zeros(HEIGHT * WIDTH, bool)
            mask[pixels] = True
            found.append(mask.reshape(HEIGHT, WIDTH))
        return found

    return decode


def test_marks_become_the_masks_of_score(project: Project, served: Served, decoded: Any) -> None:
    one = project.ask(click(60, 80))
    with_negative = project.ask(click(60, 80), click(120, 20, positive=0))
    boxed = project.ask(rectangle(RIGHT, "cup"))
    both = project.ask(rectangle(RIGHT, "cup"), click(60, 80))
    assert [(result["from_name"], result["value"]["brushlabels"]) for result in both] == [
        ("cups", ["cup"]),
        ("coins", ["coin"]),
    ]
    for result in (*one, *with_negative, *boxed, *both):
        assert result["to_name"] == "image" and result["type"] == "brushlabels" and 0 < result["score"] <= 1
        assert (result["original_width"], result["original_height"]) == (WIDTH, HEIGHT)
    scored = [
        served.mask(project.image, input_points=[[[60, 80]]]),
        served.mask(project.image, input_points=[[[60, 80], [120, 20]]], input_labels=[[1, 0]]),
        served.mask(project.image, input_boxes=[list(RIGHT)]),
    ]
    shown = decoded([*one, *with_negative, *boxed, *both])
    assert len(shown) == 5
    for mask, expected in zip(shown, [*scored, scored[2], scored[0]], strict=True):
        assert (mask == expected).all() and mask.any()

    # What the annotator accepts is stored, and read back as the same mask.
    task = project.task["id"]
    stored = project.label_studio.post(f"/api/tasks/{task}/annotations/", 201, {"result": both})["id"]
    read = project.label_studio.get(f"/api/annotations/{stored}/")["result"]
    assert [(mask == expected).all() for mask, expected in zip(decoded(read), shown[3:], strict=True)] == [True, True]


def test_polygons_where_the_label_has_a_polygon_tag(project: Project, served: Served) -> None:
    (result,) = project.ask(click(60, 80, "plate"))
    assert (result["from_name"], result["type"], result["value"]["polygonlabels"]) == (
        "plates",
        "polygonlabels",
        ["plate"],
    )
    corners = [(x / 100 * WIDTH, y / 100 * HEIGHT) for x, y in result["value"]["points"]]
    canvas = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(canvas).polygon(corners, fill=1)
    assert pictures.iou(np.asarray(canvas), served.mask(project.image, input_points=[[[60, 80]]])) > 0.95
    assert 8 <= len(corners) < 60  # few enough to edit by hand


def test_an_uploaded_image_is_fetched_with_the_token_and_encoded_once(project: Project, served: Served) -> None:
    task = project.label_studio.upload(project.number, two_discs(191))
    path = task["data"]["image"]
    assert path.startswith("/data/upload/")
    bare = requests.get(project.label_studio.url + path, timeout=30, allow_redirects=False)
    assert bare.status_code != 200
    before = served.encoded()
    for x in (60, 62, 180):
        assert project.ask(click(x, 80), task=task["id"])
    assert served.encoded() == before + 1
    written = served.log.read_text()
    assert (
        '"/predict", "status": 200' in written.replace('"path": ', "") and TOKEN not in written and KEY not in written
    )


def test_a_command_encodes_a_project_ahead(project: Project, served: Served) -> None:
    tasks = [project.label_studio.upload(project.number, two_discs(shade)) for shade in (192, 193)]
    missing = {"image": f"{served.url.replace('127.0.0.1', 'localhost')}/nothing.png"}
    broken = project.label_studio.post("/api/tasks", 201, {"project": project.number, "data": missing})["id"]
    before = served.encoded()
    command = [sys.executable, str(ROOT / "deploy" / "label_studio" / "embed_tasks.py"), "--key", KEY]
    command += ["--label-studio", project.label_studio.url, "--token", TOKEN, "--project", str(project.number)]
    done = subprocess.run([*command, "--endpoint", served.url], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"task {broken}: column 'image': expected") and TOKEN not in done.stderr + done.stdout
    requests.delete(f"{project.label_studio.url}/api/tasks/{broken}/", headers=USER, timeout=60)
    assert served.encoded() >= before + 2
    before = served.encoded()
    for task in tasks:
        assert project.ask(click(60, 80), task=task["id"])
    assert served.encoded() == before
    wrong = [option if option != TOKEN else "wrong" for option in command]
    done = subprocess.run([*wrong, "--endpoint", served.url], capture_output=True, text=True)
    assert done.returncode == 2 and "/api/projects/" in done.stderr and "status 401" in done.stderr


def test_tasks_without_marks_are_annotated_ahead(project: Project, decoded: Any) -> None:
    config = (
        '<View><Image name="photo" value="$image"/><BrushLabels name="mask" toName="photo"><Label value="disc"/>'
        "</BrushLabels></View>"
    )
    studio = project.label_studio
    number = studio.post("/api/projects", 201, {"title": "ahead", "label_config": config})["id"]
    unreadable = {"project": number, "data": {"image": "data:image/png;base64,bm8gaW1hZ2U="}}
    broken = studio.post("/api/tasks", 201, unreadable)["id"]
    task = studio.upload(number, project.image)
    served_url = studio.get(f"/api/ml/{project.backend}")["url"]
    password = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": KEY}
    assert studio.connect(number, served_url, **password).status_code == 201
    everything = {"selectedItems": {"all": True, "excluded": []}}
    studio.post(f"/api/dm/actions?id=retrieve_tasks_predictions&project={number}", body=everything)
    (prediction,) = studio.get(f"/api/predictions?task={task['id']}")
    assert studio.get(f"/api/predictions?task={broken}") == []  # so that Label Studio asks for it again another time
    assert "incorrect prediction" in studio.log.read_text() and "column 'image': expected" in studio.log.read_text()
    assert prediction["model_version"] == "sam-tiny" and prediction["score"] > 0.5
    assert {result["from_name"] for result in prediction["result"]} == {"mask"}
    assert all(result["value"]["brushlabels"] == ["disc"] for result in prediction["result"])
    shown = decoded(prediction["result"])
    for box in (LEFT, RIGHT):
        disc = Image.new("1", (WIDTH, HEIGHT))
        ImageDraw.Draw(disc).ellipse(box, fill=1)
        assert max(pictures.iou(mask, np.asarray(disc)) for mask in shown) > 0.8


def test_a_wrong_password_is_told(project: Project, served: Served) -> None:
    refused = project.label_studio.connect(
        project.number, served.url, auth_method="BASIC_AUTH", basic_auth_user="any", basic_auth_pass="wrong"
    )
    assert refused.status_code == 400 and "401 Client Error" in refused.text
    for password in ("wrong", ""):
        answer = requests.post(f"{served.url}/predict", json={}, auth=("any", password), timeout=10)
        assert answer.status_code == 401 and answer.json()["error"].startswith("an API key is needed")
    for broken in ("Basic", "Basic !!", "Basic " + base64.b64encode(b"no colon").decode(), "Basic \xff"):
        headers = {"authorization": broken.encode("latin-1")}
        assert requests.post(f"{served.url}/setup", json={}, headers=headers, timeout=10).status_code == 401
    assert requests.post(f"{served.url}/setup", json={}, auth=("", KEY), timeout=10).status_code == 200
    assert requests.post(f"{served.url}/webhook", json={"action": "X"}, auth=("", KEY), timeout=10).status_code == 201
    assert requests.get(f"{served.url}/health", timeout=10).json() == {"status": "UP", "model_class": "SegmentAnything"}
    assert requests.head(f"{served.url}/", timeout=10).status_code == 200


DATA = f"data:image/png;base64,{pictures.to_text(two_discs(1))}"
TAGS = '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"/></View>'
MARK = {"type": "keypointlabels", "value": {"x": 10, "y": 10}}
WIDE = {"type": "rectanglelabels", "value": {"x": 10, "y": 10, "width": 5, "height": "SECRET"}}


def wrong(said: str, context: Any = None, config: Any = TAGS, image: Any = DATA, **more: Any) -> Any:
    params = {"context": context} if context is not None else {"context": {"result": [MARK]}}
    body = {"tasks": [{"data": {"image": image}}], "label_config": config, "params": params, **more}
    return pytest.param(body, said, id=said[:50])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param({}, "tasks: Field required; label_config: Field required", id="nothing"),
        pytest.param([], "Input should be a valid dictionary or object", id="a list"),
        wrong("tasks.0: Input should be a valid dictionary", tasks=["SECRET"]),
        wrong("column 'tasks': expected tasks", tasks=[{}]),
        wrong("at most 1,000 rows a request", tasks=[{}] * 1001),
        wrong("label_config: Input should be a valid string", config=5),
        wrong("label_config': expected XML", config="SECRET"),
        wrong("label_config': expected XML", config=f"<View {'x' * 1_000_001}/>"),
        wrong("a tag Image with a variable", config="<View/>"),
        wrong("a tag Image with a variable", config='<View><Image name="i" value="SECRET"/></View>'),
        wrong("a tag BrushLabels or PolygonLabels", config='<View><Image name="i" value="$image"/></View>'),
        wrong("a tag BrushLabels or PolygonLabels", config=TAGS.replace('toName="image"', 'toName="SECRET"')),
        wrong("a tag BrushLabels or PolygonLabels", {"result": [{**MARK, "to_name": "SECRET"}]}),
        wrong('context\': expected {"result": [...]}', "SECRET"),
        wrong('context\': expected {"result": [...]}', {"result": "SECRET"}),
        wrong("context.result[1]': expected results of type", {"result": [MARK, {**MARK, "value": "SECRET"}]}),
        wrong("context.result[0]': expected results of type", {"result": [WIDE]}),
        wrong("context.result[0]': expected results of type", {"result": [{**MARK, "value": {"x": 1e9, "y": 1}}]}),
        wrong("at most 1000 keypoints and rectangles", {"result": [MARK] * 1001}),
        wrong("a path on the Label Studio server or a data URI", image=5),
        wrong("a path on the Label Studio server or a data URI", image=""),
        wrong("connect the model to the project again", image="/data/upload/1/SECRET.png"),
        wrong("column 'image'", image="SECRET"),
        wrong("column 'image'", image="//SECRET/a.png"),
        wrong("column 'image'", image="file:///SECRET"),
        wrong("project: String should have at most 2000 characters", project="SECRET" * 1000),
    ],
)
def test_wrong_requests(served: Served, body: Any, said: str) -> None:
    answer = served.post("/predict", body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"} and said in answer.json()["error"], answer.text
    assert "SECRET" not in answer.text and len(answer.text) < 1000


@pytest.mark.parametrize("params", [None, {"context": {"result": [{**MARK, "value": {"x": 25, "y": 50}}]}}])
def test_an_unreadable_image_costs_only_its_own_task(served: Served, params: Any) -> None:
    images: list[Any] = ["SECRET", DATA, 5, "http://127.0.0.1:9/SECRET.png"]
    tasks = [{"id": number, "data": {"image": image}} for number, image in enumerate(images)]
    answer = served.post("/predict", {"tasks": [*tasks, {}], "label_config": TAGS, "params": params})
    assert answer.status_code == 200 and "SECRET" not in answer.text, answer.text
    predictions = answer.json()["results"]
    assert [sorted(prediction) for prediction in predictions] == [
        ["model_version", "result", "score"] if number == 1 else ["error"] for number in range(5)
    ]
    assert predictions[0]["error"].startswith("column 'image': expected an image that Pillow can read")
    assert "private or not on the list of hosts" in predictions[3]["error"]
    assert "column 'tasks'" in predictions[4]["error"]
    assert predictions[1]["result"] and predictions[1]["result"][0]["value"]["rle"]
    refused = served.post("/predict", {"tasks": tasks[1:], "label_config": "<View/>", "params": params})
    assert refused.status_code == 400 and "a tag Image" in refused.json()["error"]


def test_a_host_that_is_not_allowed_names_the_setting(served: Served) -> None:
    setup = {"project": "9.9", "hostname": "http://127.0.0.1:9", "access_token": TOKEN}
    assert served.post("/setup", setup).json() == {"model_version": "sam-tiny"}
    body = {"project": "9.9", "label_config": TAGS, "tasks": [{"data": {"image": "/data/upload/9/a.png"}}]}
    for path in ("/predict", "/embed_tasks"):
        answer = served.post(path, {**body, "params": {"context": {"result": [MARK]}}})
        assert "allow the host with --hosts" in answer.text and TOKEN not in answer.text + served.log.read_text()
        assert answer.status_code == (400 if path == "/predict" else 200)


def test_configs_made_to_break_the_parser(served: Served) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 9))
    bomb = f'<!DOCTYPE v [<!ENTITY e0 "SECRET">{entities}]><View>&e8;</View>'
    outside = '<!DOCTYPE v [<!ENTITY e SYSTEM "file:///etc/passwd">]><View>&e;</View>'
    deep = "<a>" * 150_000 + "</a>" * 100
    for config in (bomb, outside, deep, "<a>" * 120_000 + "</a>" * 120_000):
        answer = served.post("/predict", {"tasks": [], "label_config": config})
        assert answer.status_code == 400 and "label_config" in answer.json()["error"]
    assert requests.get(f"{served.url}/ping", timeout=10).status_code == 200


def test_objects_on_several_images(served: Served) -> None:
    """A mark is for the image that it was made on, and its mask goes to a tag of that image."""
    config = "".join(
        f'<Image name="{side}" value="${side}"/><{tag}Labels name="{side}-mask" toName="{side}"><Label value="disc"/>'
        f"</{tag}Labels>"
        for side, tag in (("front", "Brush"), ("back", "Polygon"))
    )
    marks = [
        {**MARK, "to_name": side, "value": {"x": 25, "y": 50, "keypointlabels": ["disc"]}} for side in ("back", "front")
    ]
    data = {"front": DATA, "back": f"data:image/png;base64,{pictures.to_text(two_discs(4))}"}
    body = {"tasks": [{"id": 1, "data": data}], "label_config": f"<View>{config}</View>"}
    answer = served.post("/predict", {**body, "params": {"context": {"result": marks}}}).json()
    results = answer["results"][0]["result"]
    assert [(result["from_name"], result["to_name"], result["type"]) for result in results] == [
        ("back-mask", "back", "polygonlabels"),
        ("front-mask", "front", "brushlabels"),
    ]
    before = served.encoded()
    assert served.post("/embed_tasks", body).json() == {"embedded": 2, "errors": []}
    assert served.encoded() == before
    alone = {**body, "params": {"context": {"result": [{**marks[0], "is_positive": 0}]}}}
    assert served.post("/predict", alone).json()["results"][0]["result"] == []


def test_a_photograph_is_seen_upright(served: Served) -> None:
    """As browsers, and therefore annotators, see it."""
    image = Image.open(io.BytesIO(two_discs(3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = pictures.to_bytes(image.transpose(Image.Transpose.ROTATE_90), exif=exif)
    value = {"x": 25, "y": 50, "keypointlabels": ["disc"]}
    body = {
        "tasks": [{"data": {"image": f"data:image/png;base64,{pictures.to_text(stored)}"}}],
        "label_config": TAGS,
        "params": {"context": {"result": [{**MARK, "value": value}]}},
    }
    (result,) = served.post("/predict", body).json()["results"][0]["result"]
    assert (result["original_width"], result["original_height"]) == (WIDTH, HEIGHT)
