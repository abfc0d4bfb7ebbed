"""The pipeline's files agree with each other and with the code; parameters are checked by name and type."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import ancer
from ancer import pipeline

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = {name: stage for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()}
FLOORS = [
    {"files", "networks", "noise", "checkpoints", "geometry", "regions", "datasets", "models", "confidence", "storage"}
    | {"workers"},
    {"smoothing", "schemes", "training"},
    {"search", "optimization", "stopping", "certification", "best"},
    {"memory", "store", "rows", "tasks", "results"},
    {"captions", "plots", "pipeline", "engine", "report"},
    {"probe", "explore"},
]
BENEATH = {  # pairs on one floor, the second beneath the first
    ("models", "files"),
    ("models", "networks"),
    ("regions", "geometry"),
    ("storage", "geometry"),
    ("checkpoints", "models"),
    ("checkpoints", "networks"),
    ("training", "smoothing"),
    ("training", "schemes"),
    ("optimization", "search"),
    ("certification", "stopping"),
    ("best", "stopping"),
    ("best", "certification"),
    ("rows", "store"),
    ("tasks", "store"),
    ("engine", "pipeline"),
    ("plots", "captions"),
    ("report", "captions"),
    ("report", "pipeline"),
    ("explore", "probe"),
}
TEST_NOTEBOOKS = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def imports(source: str) -> set[str]:
    """Rooms of ancer that a source imports, public names resolved to their rooms."""
    rooms = set()
    nodes = list(ast.walk(ast.parse(source)))
    typing_only = [n for n in nodes if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    ignored = {id(inner) for block in typing_only for inner in ast.walk(block)}
    for node in nodes:
        if id(node) in ignored:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "ancer":
            rooms |= {ancer._HOMES.get(a.name, a.name) for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ancer."):
            rooms.add(node.module.split(".")[1])
    return rooms


def code(path: Path) -> str:
    return "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")


def closure(rooms: set[str]) -> set[str]:
    more = rooms | {r for room in rooms for r in imports((ROOT / f"ancer/{room}.py").read_text())}
    return rooms if more == rooms else closure(more)


def source(stage: str) -> str:
    return code(ROOT / f"notebooks/{stage}.ipynb") if stage != "report" else (ROOT / "ancer/report.py").read_text()


def body(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def test_rooms_import_only_from_floors_below():
    rooms = {p.stem for p in (ROOT / "ancer").glob("*.py")} - {"__init__"}
    floor = {room: k for k, level in enumerate(FLOORS) for room in level}
    assert rooms == set(floor)
    for room in rooms:
        for other in imports((ROOT / f"ancer/{room}.py").read_text()):
            assert floor[other] < floor[room] or (room, other) in BENEATH, f"{room} imports {other}"


def test_rooms_are_small():
    for path in (ROOT / "ancer").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path.name


def test_public_names_exist_and_importing_the_package_loads_nothing_heavy():
    for name in ancer.__all__:
        assert getattr(ancer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'certifi'"):
        _ = ancer.certifi
    top = {n.module for n in ast.walk(ast.parse((ROOT / "ancer/__init__.py").read_text())) if isinstance(n, ast.Import)}
    assert not top


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "sources"])
def test_stage_depends_on_exactly_the_modules_its_notebook_uses(stage):
    stated = {Path(d).stem for d in body(stage)["deps"] if d.startswith("${root}/ancer/")}
    if stage == "report":
        assert stated == closure(imports(source(stage))) | {"report", "web"}
    else:
        assert stated == closure(imports(source(stage)))
        assert f".build/notebooks/{stage}.ipynb" in body(stage)["deps"]


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "sources"])
def test_stage_depends_on_exactly_the_parameters_its_notebook_reads(stage):
    text = source(stage).replace("t = p.toy", "").replace("vars(p.", "(p.").replace("t.n,", "p.toy,")
    used = set(re.findall(r"\bp\.([a-z]+)(?:\.([a-z]\w*))?", text))
    stated = {p.split(".")[0] for p in body(stage).get("params", [])}
    if f".build/experiments/{'${key}'}.yaml" in body(stage)["deps"]:
        stated.add("experiment")
    assert {name for name, _ in used} - {"folder", "output", "cluster", "tasks"} == stated
    for partial in [p for p in body(stage).get("params", []) if "." in p]:
        section, key = partial.split(".")
        assert {k for s, k in used if s == section} <= {p.split(".")[1] for p in body(stage)["params"] if "." in p}, key


@TEST_NOTEBOOKS
def test_notebook_is_stripped_short_and_defines_nothing(path):
    notebook = nbformat.read(path, as_version=4)
    committed = path.read_text()
    assert nbformat.writes(pipeline.strip(notebook)).strip() == committed.strip()
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    assert len(cells) <= 12
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    for node in ast.walk(ast.parse(code(path))):
        assert not isinstance(node, ast.FunctionDef | ast.ClassDef), f"{path.name} defines {node.name}"


@TEST_NOTEBOOKS
def test_notebook_parameters_are_those_that_the_stage_passes(path):
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    names = {t.id for n in ast.parse(cell.source).body if isinstance(n, ast.Assign) for t in n.targets}
    command = body(path.stem)["cmd"] if path.stem in STAGES else ""  # explore and index are for people alone
    passed = set(re.findall(r"-p (\w+)", command[0] if isinstance(command, list) else command))
    assert passed <= names and "profile" in names
    assert all("=" not in line.split("#", 1)[1] for line in cell.source.splitlines() if "#" in line)


def parameters() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def write(folder: Path, values: dict) -> Path:
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_the_default_profile_is_as_the_issue_asks():
    p = pipeline.load_parameters(profile=ROOT)
    assert p.images >= 200 and p.certify.n == 10_000
    assert p.certify.methods == ["fixed", "isotropic", "anisotropic", "best"]
    found = {(e.noise, e.sigma) for e in p.experiments.values()}
    assert found == {(noise, sigma) for noise in ("gaussian", "uniform") for sigma in (0.25, 0.5)}


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("certify", "alhpa"), 0.001, "unknown parameter 'alhpa': did you mean 'alpha'"),
        (("certify", "alpha"), "1e-3", r"alpha must be of type float, found '1e-3' \(write 0.001"),
        (("tasks", "certify"), 0, "tasks: certify must be at least 1, found 0"),
        (("seed",), True, "seed must be of type int, found True"),
        (("images",), 10.5, "images must be of type int, found 10.5"),
        (("train", "stability", "epochs"), None, "train: stability: epochs must be of type int, found None"),
        (("train", "stability"), None, "train: stability: parameter 'scheme' is missing"),
        (("train", "stability"), {"scheme": "published", "source": "rs4a"}, "digits-l1-0.25: options must name"),
        (("train", "stability", "scheme"), "published", "unknown parameter 'batch_size': known: scheme, source"),
        (("experiments", "digits-l2-0.25", "training"), "macer", "no recipe 'macer' in train: it has augm"),
        (("published",), [{"norm": 2}], "published: parameter 'training' is missing"),
        (("experiments", "digits-l2-0.25", "simga"), 1, "experiments: digits-l2-0.25: unknown parameter 'simga'"),
        (("tabels",), {}, "unknown parameter 'tabels': did you mean 'tables'"),
    ],
)
def test_mistyped_parameters_are_named(tmp_path, path, value, message):
    values = parameters()
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        pipeline.load_parameters(profile=write(tmp_path, values))


def test_parts_to_build_from_are_no_parameters(tmp_path):
    text = (ROOT / "params.yaml").read_text().replace("images: 200", "x-small: &small {images: 7}\n<<: *small")
    (tmp_path / "params.yaml").write_text(text)
    p = pipeline.load_parameters("digits-l1-0.5", profile=tmp_path)
    assert p.images == 7 and p.experiment.recipe == p.train.stability and p.train.stability["epochs"] == 200


@pytest.mark.parametrize("text", ["cluster:", ""])
def test_no_cluster_means_this_process(tmp_path, text):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("cluster: {}", text))
    assert pipeline.load_parameters(profile=tmp_path).cluster.__dict__ == {}


def test_progress_counts_images_and_ends_without_a_time(capsys):
    yielded = []
    for chunk in pipeline.progress([[4, 9], [14]], "certify", 3):
        yielded.append(chunk)
    said = capsys.readouterr().out
    assert yielded == [[4, 9], [14]]
    assert re.search(r"certify: 2 of 3 images, [\d.]+ a second, \d+ s left", said) and said.endswith("certify: done\n")
    items = [("a", 2), ("b", 3)]
    assert list(pipeline.progress(items, "x", 5, lambda item: item[1], "http://h")) == items
    said = capsys.readouterr().out
    assert "x: 2 of 5 images" in said and "s left, dashboard: http://h\n" in said and said.endswith("x: done\n")


def test_epochs_are_reported_with_the_losses(capsys):
    losses = []
    report = pipeline.epoch_reporter(2, losses)
    report(1, 0.5)
    assert "epoch 1 of 2: loss 0.500" in capsys.readouterr().out
    report(2, 0.25)
    assert losses == [0.5, 0.25] and capsys.readouterr().out.endswith("train: done\n")


def test_missing_parameters_and_experiments_are_named(tmp_path):
    values = parameters()
    del values["certify"]["n0"]
    with pytest.raises(ValueError, match="certify: parameter 'n0' is missing"):
        pipeline.load_parameters(profile=write(tmp_path, values))
    with pytest.raises(KeyError, match="unknown experiment 'digits-l3': params.yaml has digits-l2-0.25"):
        pipeline.load_parameters("digits-l3", profile=ROOT)
    with pytest.raises(FileNotFoundError, match="no params.yaml in profile folder"):
        pipeline.load_parameters(profile=tmp_path / "nowhere")


def test_profile_is_the_nearest_one_upwards(tmp_path, monkeypatch):
    inner = tmp_path / "profiles" / "x"
    inner.mkdir(parents=True)
    write(tmp_path, parameters())
    write(inner, {**parameters(), "seed": 5})
    monkeypatch.chdir(inner)
    assert pipeline.load_parameters().seed == 5
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert pipeline.load_parameters().seed == 0


def test_overrides_write_elsewhere():
    whole = pipeline.load_parameters("digits-l2-0.25", profile=ROOT)
    trial = pipeline.load_parameters("digits-l2-0.25", profile=ROOT, images=3, n=50)
    assert whole.output == ROOT and trial.output == ROOT / ".build/trial"
    assert (trial.images, trial.certify.n) == (3, 50)


def test_saving_a_notebook_with_outputs_changes_no_source(tmp_path):
    write(tmp_path, parameters())
    source = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", source)
    p = pipeline.load_parameters(profile=tmp_path)
    pipeline.write_sources(sorted(source.glob("*.ipynb")), p)
    before = {f.name: f.read_bytes() for f in (tmp_path / ".build").rglob("*.*")}
    notebook = nbformat.read(source / "toy.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.id = "x" + cell.id
        cell.metadata["collapsed"] = True
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="hello")], 3
    notebook.metadata["language_info"] = {"name": "python", "version": "3.12.1"}
    nbformat.write(notebook, source / "toy.ipynb")
    pipeline.write_sources(sorted(source.glob("*.ipynb")), p)
    assert before == {f.name: f.read_bytes() for f in (tmp_path / ".build").rglob("*.*")}
    assert set(before) == {f"{e}.yaml" for e in p.experiments} | {n.name for n in NOTEBOOKS}


def test_conda_environment_names_the_same_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [d["pip"] for d in conda if isinstance(d, dict)]
    assert sorted(pip) == sorted([*project["dependencies"], "-e ."])


def test_lock_holds_exact_versions_of_every_dependency_without_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "torch==2.13.0" not in lock
    pinned = {re.match(r"[a-z0-9-]+", line)[0] for line in lock.splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["dask"], *extras["explore"]]
    assert {re.match(r"[a-z0-9-]+", w)[0] for w in wanted} <= pinned
    assert all("==" in line for line in lock.splitlines())


def test_committed_results_hold_no_time_path_or_date():
    folders = ["results", "profiles/*/results"]
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for path in [ROOT / line for line in listed.stdout.splitlines()]:
        if path.is_file() and path.parent.name != "timing" and path.suffix != ".png":
            text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
            assert not re.search(r"20\d\d-\d\d-\d\d|/home/|/root/|/tmp/|site-packages|\d s left|Traceback", text), path
