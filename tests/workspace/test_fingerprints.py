"""What a stage depends on: notebook, import closure, parameters, all in one file for DVC.

A change re-runs the stages that it concerns, and no others.
"""

import copy
import itertools
import json
import shutil
import subprocess
import sys
import types

import nbformat
import pytest
from ruamel.yaml import YAML
from ruamel.yaml.events import MappingStartEvent
from stages import ANCER, ROOT, compute, parameters, read_yaml, small, write_parameters

from ancer.certification import certify
from ancer.models.networks import build
from ancer.selection import certify_best
from ancer.training.loop import train
from ancer.workspace import experiment as experiments
from ancer.workspace import fingerprints, imports, places
from ancer.workspace.digests import data_digests
from ancer.workspace.experiment import FILES, Experiment, Profile
from ancer.workspace.fingerprints import (
    FREE,
    NOT_NOTEBOOKS,
    OF_ALL,
    OF_EXPERIMENT,
    fingerprint,
    write_fingerprints,
)
from ancer.workspace.parameters.fields import Section
from ancer.workspace.parameters.models import Parameters
from ancer.workspace.stages import certify as certify_stage
from ancer.workspace.stages import optimize as optimize_stage

NOTEBOOKS = ROOT / "notebooks"
PIPELINE = read_yaml(ROOT / "dvc.yaml")["stages"]
STAGES = [*OF_EXPERIMENT, *OF_ALL]
VOTING = ("coverage", "statistics", "ablations")  # of all experiments, with their networks
NAME = "digits-l2-025"


def code(stage):
    """A notebook's code."""
    cells = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def prints(folder=ROOT, notebooks=NOTEBOOKS):
    """The fingerprints of a profile: stage, or (stage, experiment) -> fingerprint."""
    p = Profile.open(folder).parameters
    digests = images_of(p)
    found = {stage: fingerprint(notebooks, p, stage, digests=digests) for stage in OF_ALL}
    for stage in OF_EXPERIMENT:
        for name in p.experiments:
            found[stage, name] = fingerprint(notebooks, p, stage, name, digests=digests)
    return found


def images_of(p):
    """Digests of the images of each experiment, as if all were the same."""
    return {name: {"train": "a", "test": "b"} for name in p.experiments}


def differing(before, after):
    """The stages whose fingerprints differ."""
    stages = set()
    for key in before:
        if before[key] != after[key]:
            stages.add(key if isinstance(key, str) else key[0])
    return stages


# --- dvc.yaml


def test_every_stage_depends_on_its_fingerprint():
    assert set(PIPELINE) - {"sources"} == set(STAGES)
    for stage in OF_ALL:
        assert f".build/fingerprints/{stage}.json" in PIPELINE[stage]["deps"]
    for stage in OF_EXPERIMENT:
        assert PIPELINE[stage]["foreach"] == "${experiments}"
        deps = PIPELINE[stage]["do"]["deps"]
        assert f".build/fingerprints/{stage}/${{key}}.json" in deps
    assert PIPELINE["sources"]["outs"] == [{".build/fingerprints": {"cache": False}}]


def test_pipeline_names_no_module_and_is_short():
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 160
    assert "ancer/" not in text and ".py" not in text and "ancer." not in text
    for stage in PIPELINE.values():
        assert "params" not in stage.get("do", stage)


def test_commands_quote_the_names_that_they_get():
    for stage in OF_EXPERIMENT:
        commands = PIPELINE[stage]["do"]["cmd"]
        for command in [commands] if isinstance(commands, str) else commands:
            bare = command.replace("${root}", "")
            while "'" in bare:
                before, _, rest = bare.partition("'")
                bare = before + rest.partition("'")[2]
            assert "$" not in bare, command


WITH_YAML = sorted(
    {
        *ROOT.glob("*.yaml"),
        *ROOT.glob("*.yml"),
        *ROOT.glob("profiles/*/*.yaml"),
    }
)


@pytest.mark.parametrize("path", WITH_YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_yaml_file_has_anchors_aliases_or_merge_keys(path):
    """`dvc exp run -S` rewrites the file without them and changes what else used them."""
    events = list(YAML().parse(path.read_text()))
    assert any(isinstance(event, MappingStartEvent) for event in events)
    for event in events:
        assert getattr(event, "anchor", None) is None, (path, event)
        assert getattr(event, "value", None) != "<<", (path, event)


# --- the closure of imports


def package(folder, monkeypatch, name, sources):
    """A package of these modules, name -> source, that can be imported."""
    for module, source in sources.items():
        path = folder / name / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder)


def test_closure_of_a_hand_made_package(tmp_path, monkeypatch):
    sources = {
        "top": "from typing import TYPE_CHECKING\nimport numpy\nfrom handmade import middle\n"
        "if TYPE_CHECKING:\n    from handmade.typing_only import Thing\n",
        "middle": "import handmade.inner.deep\n",
        "inner/deep": "def later():\n    from handmade.lazy import value\n",
        "lazy": "from handmade.circle import other\nvalue = 1\n",
        "circle": "import handmade.lazy\n",
        "typing_only": "Thing = int\n",
        "unrelated": "",
    }
    package(tmp_path, monkeypatch, "handmade", sources)
    found = imports.closure(["handmade.top"])
    names = ("top", "middle", "inner.deep", "lazy", "circle")
    assert found == {f"handmade.{name}" for name in names}
    assert "handmade" not in sys.modules  # read, not imported


def test_closure_follows_ancer_by_its_public_names(tmp_path, monkeypatch):
    sources = {
        "by_name": "from ancer import certify\n",
        "by_attribute": "import ancer\n\ndef f(x):\n    return ancer.certify(x)\n",
        "by_module": "from ancer.certification import certify\n",
        "by_parent": "from ancer.workspace import imports\n",
        "by_alias": "import ancer.certification as c\n",
        "plain": "import ancer\n",
    }
    package(tmp_path, monkeypatch, "handmade2", sources)
    whole = imports.closure(["ancer.certification"])
    assert "ancer.smoothing" in whole and "ancer.optimization.isotropic" not in whole
    for name in ("by_name", "by_attribute", "by_module", "by_alias"):
        assert imports.closure([f"handmade2.{name}"]) == {f"handmade2.{name}"} | whole, name
    by_parent = imports.closure(["handmade2.by_parent"])
    assert by_parent == {"handmade2.by_parent", "ancer.workspace.imports"}
    assert imports.closure(["handmade2.plain"]) == {"handmade2.plain"}


def test_closure_follows_relative_imports(tmp_path, monkeypatch):
    """Of a user's own package: a change there must never reuse a result."""
    sources = {
        "top": "from . import a\nfrom .b import f\n",
        "a": "",
        "b": "from .inner.c import f\n",
        "inner/c": "from ..d import f\n",
        "d": "def f(): ...\n",
    }
    package(tmp_path, monkeypatch, "handmade3", sources)
    found = imports.closure(["handmade3.top"])
    assert found == {f"handmade3.{name}" for name in ("top", "a", "b", "inner.c", "d")}


def test_what_only_type_checkers_see_is_ignored_and_nothing_else(tmp_path, monkeypatch):
    source = (
        "import typing\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import handmade4.a\n"
        "else:\n    import handmade4.b\n"
        "if not TYPE_CHECKING:\n    import handmade4.c\n"
    )
    modules = {"top": source, "a": "", "b": "", "c": ""}
    package(tmp_path, monkeypatch, "handmade4", modules)
    found = imports.closure(["handmade4.top"])
    assert found == {"handmade4.top", "handmade4.b", "handmade4.c"}


def test_closure_holds_all_that_python_loads():
    """Against the interpreter: a notebook's imports in a fresh process, and what they load."""
    stages = [stage for stage in STAGES if stage not in NOT_NOTEBOOKS]
    lines = {}
    for stage in stages:
        kinds = ("import ", "from ")
        lines[stage] = "\n".join(li for li in code(stage).splitlines() if li.startswith(kinds))
    lines["report"] = "import ancer.workspace.report.site"
    script = """
import json, os, sys
import matplotlib, pandas, pydantic, scipy.stats, torch
for stage, lines in json.loads(sys.stdin.read()).items():
    read, write = os.pipe()
    if os.fork() == 0:
        exec(lines)
        loaded = [name for name in sys.modules if name.startswith("ancer.")]
        os.write(write, json.dumps([stage, loaded]).encode() + b"\\n")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        print(file.read(), end="")
    os.wait()
"""
    output = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    loaded = dict(map(json.loads, output.splitlines()))
    assert set(loaded) == set(STAGES)
    for stage, found in loaded.items():
        start = imports.imports(lines[stage])
        # a package's own file says nothing but what it is
        modules = {name for name in found if not is_package(name)}
        assert modules <= imports.closure(start), stage


def is_package(name):
    return (ROOT / name.replace(".", "/")).is_dir()


def test_files_of_packages_hold_no_code():
    """So that they need not be in a closure."""
    for path in (ROOT / "ancer").rglob("__init__.py"):
        lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
        if path.parent.name not in ("ancer", "bases", "optimization"):
            assert len(lines) == 1 and lines[0].startswith('"""'), path


def test_a_module_without_a_file_is_named():
    made = types.FunctionType((lambda: None).__code__, {"__name__": "nowhere"})
    with pytest.raises(ValueError, match="no source of module '.*': it must be a file"):
        imports.code_of(made)


# --- which change concerns which stage


@pytest.fixture
def change(monkeypatch):
    """A function that changes the source of a module, as it is read."""

    def change(module):
        original = imports._source
        assert original(module)

        def source(name):
            return original(name) + ("\n# changed\n" if name == module else "")

        monkeypatch.setattr(imports, "_source", source)

    return change


def keys_of_code():
    """The hashes of code in the keys under which results are kept."""
    methods = Profile.open(ROOT).methods
    theta = [method.theta for method in methods.chosen(methods).values()]
    return {
        "train": imports.code_of(train, build),
        "optimize": [imports.code_of(function) for function in theta],
        "certify": imports.code_of(certify, certify_best),
    }


@pytest.mark.parametrize(
    "module, stages",
    [
        ("workspace.figures.curves", {"train", "certify", "coverage", "statistics", "figures"}),
        ("workspace.figures.galleries", {"train", "optimize", "certify", "statistics", "figures"}),
        ("workspace.figures.plane", {"toy"}),
        ("workspace.figures.stopping", {"statistics"}),
        ("workspace.report.pages", {"report"}),
        ("workspace.stages.certify", {"certify"}),
        ("workspace.stages.memory", {"memory", "coverage"}),
        ("perturbations.coverage", {"coverage"}),
        ("workspace.stages.figures", {"certify", "figures"}),
        ("workspace.explorer.images", set()),
        ("workspace.cli", set()),
        ("workspace.engine", set()),
        ("workspace.cluster", {"optimize", "certify"}),
    ],
)
def test_a_change_concerns_only_the_stages_that_import_the_module(change, module, stages):
    before = prints()
    keys = keys_of_code()
    change(f"ancer.{module}")
    assert differing(before, prints()) == stages
    assert keys_of_code() == keys  # nothing is trained, optimized or certified again


@pytest.mark.parametrize(
    "module, stages, keys",
    [
        ("optimization.anisotropic", {"optimize", "toy"}, {"optimize"}),
        ("optimization.isotropic", {"optimize", "toy"}, {"optimize"}),
        ("optimization._scale", {"optimize", "toy"}, {"optimize"}),
        ("optimization.published", {"optimize", "ablations"}, {"optimize"}),
        ("selection", {"certify"}, {"certify"}),
        ("certification", {"certify", "memory", "statistics", "ablations", "toy"}, {"certify"}),
        ("regions.memory", {"memory", "toy"}, set()),
        ("training.loop", {"train", "toy"}, {"train"}),
        ("models.networks", {"train"}, {"train"}),
        (
            "smoothing",
            {"train", "optimize", "certify", "statistics", "ablations", "toy"},
            {"optimize", "certify"},
        ),
        (
            "streams",
            {"train", "optimize", "certify", "statistics", "ablations", "toy"},
            {"train", "optimize", "certify"},
        ),
    ],
)
def test_a_change_of_the_method_concerns_all_that_it_computes(change, module, stages, keys):
    """At least these stages, whatever the name by which params.yaml leads to the function."""
    before = prints()
    keys_before = keys_of_code()
    change(f"ancer.{module}")
    assert stages <= differing(before, prints())
    keys_after = keys_of_code()
    assert {stage for stage in keys_after if keys_after[stage] != keys_before[stage]} == keys


def test_the_report_depends_on_its_templates(tmp_path, monkeypatch):
    before = prints()["report"]
    templates = shutil.copytree(ROOT / "ancer/workspace/report/templates", tmp_path / "templates")
    monkeypatch.setattr(fingerprints, "TEMPLATES", templates)
    assert prints()["report"] == before
    for template in sorted(templates.iterdir()):
        text = template.read_text()
        template.write_text(f"{text}\n")
        assert prints()["report"] != before, template.name
        template.write_text(text)
    assert prints()["report"] == before


def test_a_users_function_concerns_the_stages_that_run_it(tmp_path, monkeypatch):
    """A method, network or data set by its path: its own package, as far as it imports."""
    body = "def choose(model, x, noise, *, seed, indices):\n    return noise.theta\n"
    package(tmp_path, monkeypatch, "handmade5", {"mine": f"import handmade5.more\n{body}"})
    more = tmp_path / "handmade5/more.py"
    more.write_text("")
    values = parameters()
    values["methods"]["anisotropic"] = {"theta": "handmade5.mine.choose", "start": "fixed"}
    for e in values["experiments"].values():
        e.pop("method_options", None)
    write_parameters(tmp_path, values)
    before = prints(tmp_path)
    more.write_text("# changed\n")
    assert differing(before, prints(tmp_path)) >= {"optimize"}


@pytest.mark.parametrize(
    "options, stages",
    [
        ({"basis": "handmade6.mine:basis"}, {"optimize", "certify", "coverage"}),
        ({"toward": {"handmade7.mine:lighter": 1.0}}, {"optimize"}),
    ],
)
def test_a_users_basis_and_perturbation_concern_the_stages_of_its_method(
    tmp_path, monkeypatch, options, stages
):
    body = """
from ancer.bases import rotation

def basis(shape):
    return rotation(shape, name="mine")

def lighter(x):
    return x + 0.1
"""
    name = "handmade6" if "basis" in options else "handmade7"  # a package is imported once
    package(tmp_path, monkeypatch, name, {"mine": body})
    values = parameters()
    values["methods"]["shaped"] |= options
    write_parameters(tmp_path, values)
    before = prints(tmp_path)
    (tmp_path / f"{name}/mine.py").write_text(body + "# changed\n")
    assert differing(before, prints(tmp_path)) >= stages


def test_other_weights_in_a_file_concern_training_alone(tmp_path):
    """The checkpoint that it makes of them tells the stages that follow."""
    values = parameters()
    name = "digits-l2-025"
    values["experiments"] = {name: values["experiments"][name]}
    values["train"]["given"] = {"scheme": "weights", "normalize": "none"}
    values["experiments"][name] |= {"training": "given", "options": {"file": "w.pt"}}
    values["experiments"][name].pop("methods", None)
    p = Profile.open(write_parameters(tmp_path, values)).parameters
    found = []
    for content in (None, b"one", b"two"):
        if content is not None:
            (tmp_path / "w.pt").write_bytes(content)
        digests = data_digests(tmp_path, p)
        assert digests[name]["train"] and digests[name]["test"]
        of_stage = [fingerprint(NOTEBOOKS, p, s, name, digests=digests) for s in OF_EXPERIMENT]
        found.append(dict(zip(OF_EXPERIMENT, of_stage, strict=True)))
    for before, after in itertools.pairwise(found):
        assert {stage for stage in before if before[stage] != after[stage]} == {"train"}


@pytest.mark.parametrize(
    "place, value, stages",
    [
        ("cluster", {"local": 2}, set()),
        ("tasks", {"optimize": 1}, set()),
        ("tables.radii", [0.0], {"tables", "statistics"}),
        ("figures.images", 3, {"optimize", "figures"}),
        ("memory", {"methods": ["best"]}, {"memory", "coverage"}),
        ("coverage.images", 3, {"coverage"}),
        ("toy.sigma", 0.1, {"toy"}),
        ("statistics.images", 3, {"statistics"}),
        ("ablations.images", 3, {"ablations"}),
        ("volumes.against", ["fixed"], {"volumes"}),
        ("published", [], set()),
        ("certify.n0", 50, {"certify", "volumes", "tables", *VOTING}),
        ("certify.n", 50, set(STAGES) - {"train"}),
        ("evaluate.batch_size", 5, {"train", "optimize", "certify", *VOTING}),
    ],
)
def test_a_parameter_concerns_the_stages_that_read_it(tmp_path, place, value, stages):
    values = parameters()
    *path, last = place.split(".")
    section = values
    for key in path:
        section = section[key]
    section[last] = value
    found = differing(prints(), prints(write_parameters(tmp_path, values)))
    assert found >= stages
    if place != "certify.n0":  # whole sections are listed where an input has changed anyway
        assert found == stages


def test_an_experiment_concerns_its_own_stages_and_those_of_all(tmp_path):
    values = parameters()
    values["experiments"]["digits-l1-05"]["sigma"] = 0.75
    before = prints()
    after = prints(write_parameters(tmp_path, values))
    changed = {key for key in before if before[key] != after[key]}
    own = {(stage, "digits-l1-05") for stage in OF_EXPERIMENT}
    all_of_them = {stage for stage, reads in OF_ALL.items() if "experiments" in reads}
    assert changed == own | all_of_them


def test_a_label_changes_no_key(tmp_path):
    """What tables and figures call a method concerns no theta and no row."""
    keys = []
    run = types.SimpleNamespace(
        network=types.SimpleNamespace(sha256="checkpoint"), setting={"evaluation": {}}
    )
    for label in ("Fixed sigma", "Another word"):
        values = parameters()
        for method in values["methods"].values():
            method["label"] += label
        folder = tmp_path / label
        folder.mkdir()
        e = Experiment.open(NAME, profile=write_parameters(folder, values))
        e.file("theta").parent.mkdir(parents=True)
        e.file("theta").write_text("")
        chosen = e.methods.chosen(e.methods)
        bases = e.bases(chosen).values()
        methods = list(map(optimize_stage._description, chosen.values(), bases))
        keys.append((keys_of_code(), methods, certify_stage._provenance(e, run)))
    assert keys[0] == keys[1]
    assert len(keys[0][1]) == 6


# --- parameters that a stage may read


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_does_not_list_is_not_there(stage):
    name = NAME if stage in OF_EXPERIMENT else None
    seen = Profile.open(ROOT, stage=stage, experiment=name).parameters
    reads = OF_EXPERIMENT.get(stage) or OF_ALL[stage]
    whole = {path for path in reads if "." not in path}
    parts = {}
    for path in reads:
        if "." in path:
            section, _, key = path.partition(".")
            parts.setdefault(section, set()).add(key)
    if stage in OF_EXPERIMENT:
        whole |= {"experiments", "train"}
        assert list(seen.experiments) == [NAME] and list(seen.train) == ["augmentation"]
    for field in Parameters.model_fields:
        if field in {*whole, *parts, *FREE}:
            getattr(seen, field)
        else:
            with pytest.raises(AttributeError, match=f"depend on .*{field}: add it to OF_EXPERI"):
                getattr(seen, field)
    everything = Profile.open(ROOT).parameters
    for section, keys in parts.items():
        for key in type(getattr(seen, section)).model_fields:
            if key in keys:
                value = getattr(getattr(seen, section), key)
                assert value == getattr(getattr(everything, section), key)
            else:
                with pytest.raises(AttributeError, match=f"does not depend on .*{key}"):
                    getattr(getattr(seen, section), key)


def test_a_name_that_is_no_parameter_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = Profile.open(ROOT).parameters.nothing


@pytest.fixture
def reads(monkeypatch):
    """Every parameter that is read once a stage has opened its profile, as Section.field."""
    found = set()
    plain = Section.__getattribute__
    visible = experiments.visible

    def read(self, name):
        kind = type(self)
        if name in kind.model_fields or name == "model_dump":
            found.add((kind.__name__, name))
        return plain(self, name)

    def opened(*arguments):
        seen = visible(*arguments)
        found.clear()
        return seen

    monkeypatch.setattr(Section, "__getattribute__", read)
    monkeypatch.setattr(experiments, "visible", opened)
    return found


@pytest.mark.slow
def test_a_stage_reads_all_parameters_that_it_lists(tmp_path, reads):
    """On a small profile, in the pipeline's order."""
    folder = small(tmp_path, [NAME])
    order = ["toy", *OF_EXPERIMENT]
    order += ["volumes", "tables", "coverage", "statistics", "ablations", "figures"]
    unread = []
    for stage in order:
        reads.clear()
        compute(folder, stage)
        for path in OF_EXPERIMENT.get(stage) or OF_ALL[stage]:
            section, _, key = path.partition(".")
            kind = Parameters.model_fields[section].annotation
            read = ("Parameters", section) in reads
            if key:
                read = read and (kind.__name__, key) in reads
            if not read:
                unread.append((stage, path))
    assert unread == []


# --- the files


def test_writing_again_gives_the_same_bytes_and_what_is_gone_goes_away(tmp_path):
    p = Profile.open(ROOT).parameters
    folder = tmp_path / "fingerprints"
    write_fingerprints(NOTEBOOKS, p, folder, digests=images_of(p))
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")}
    expected = {f"{stage}.json" for stage in OF_ALL}
    expected |= {f"{stage}/{name}.json" for stage in OF_EXPERIMENT for name in p.experiments}
    assert {str(path) for path in before} == expected
    write_fingerprints(NOTEBOOKS, p, folder, digests=images_of(p))
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")}
    assert before == after
    values = parameters()
    del values["experiments"]["digits-l1-05"]
    smaller = Profile.open(write_parameters(tmp_path, values)).parameters
    write_fingerprints(NOTEBOOKS, smaller, folder, digests=images_of(smaller))
    left = {str(path.relative_to(folder)) for path in folder.rglob("*.json")}
    assert left == {path for path in expected if "digits-l1-05" not in path}


def test_command_writes_them_and_checks_first(tmp_path):
    write_parameters(tmp_path, parameters())
    arguments = [ANCER, "sources", str(NOTEBOOKS)]
    subprocess.run(arguments, cwd=tmp_path, check=True)
    folder = tmp_path / ".build/fingerprints"
    p = Profile.open(tmp_path).parameters
    digests = data_digests(tmp_path, p)
    for stage in OF_ALL:
        found = json.loads((folder / f"{stage}.json").read_text())
        expected = fingerprint(NOTEBOOKS, p, stage, digests=digests)
        assert found == json.loads(json.dumps(expected))
    values = parameters()
    values["methods"]["anisotropic"]["kapa"] = 1
    write_parameters(tmp_path, values)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    failed = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode and "did you mean 'kappa'" in failed.stderr
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}


def test_saving_a_notebook_with_outputs_changes_no_fingerprint(tmp_path):
    source = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, source)
    before = prints(notebooks=source)
    notebook = nbformat.read(source / "toy.ipynb", as_version=4)
    changed = copy.deepcopy(notebook)
    for cell in changed.cells:
        cell.id = "x" + cell.id
        cell.metadata["collapsed"] = True
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("stream", text="hello")]
            cell.execution_count = 3
    changed.metadata["language_info"] = {"name": "python", "version": "3.12.1"}
    nbformat.write(changed, source / "toy.ipynb")
    assert prints(notebooks=source) == before
    notebook.cells[-1].source += "\n# another figure"
    nbformat.write(notebook, source / "toy.ipynb")
    assert differing(before, prints(notebooks=source)) == {"toy"}


def test_paths_of_the_pipeline_are_those_of_an_experiment():
    """dvc.yaml says them once more."""
    outs = set()
    for stage in PIPELINE.values():
        body = stage.get("do", stage)
        for out in [*body.get("outs", []), *body.get("metrics", [])]:
            outs |= {out} if isinstance(out, str) else set(out)
    for kind in ("checkpoint", "theta", "rows", "answers"):
        assert FILES[kind].format(name="${key}") in outs
    assert FILES["volumes"] in outs
    folders = {path.rsplit("/", 1)[0] for path in places.FOLDERS.values()}
    assert folders == {"results"}
    for kind in (
        "tables",
        "metrics",
        "figures",
        "toy",
        "statistics",
        "ablations",
        "coverage",
        "report",
    ):
        assert places.FOLDERS[kind] in outs
