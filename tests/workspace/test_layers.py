"""The package's layers, sizes and public names; the environment's files; the committed results."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from stages import ROOT, read_yaml

import ancer
from ancer.workspace.imports import PACKAGE, closure, imports_of_module, public_names

PATHS = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def module_of(path):
    return ".".join(("ancer", *path.relative_to(PACKAGE).with_suffix("").parts))


MODULES = {module_of(path): path for path in PATHS}
# from the bottom; a module imports from layers below its own, or from its own folder
LAYERS = [
    {"_files", "registry", "confidence", "evaluation", "measures"},
    {"bases"},
    {"noise", "perturbations"},
    {"classifier", "streams"},
    {"queries", "regions"},
    {"smoothing", "certificates"},
    {"stopping"},
    {"certification", "optimization"},
    {"_contest"},
    {"selection", "job"},
    {"training", "models", "datasets"},
    {"commands"},
    {"workspace"},
]
# of the workspace, likewise
WORKSPACE_LAYERS = [
    {"places"},
    {"imports", "notebooks", "cluster", "store", "parameters"},
    {"methods", "tasks", "engine", "digests"},
    {"fingerprints"},
    {"subject"},
    {"experiment"},
    {"tables"},
    {"figures"},
    {"stages", "report", "explorer"},
    {"cli"},
]
FORBIDDEN = {
    "pandas",
    "matplotlib",
    "yaml",
    "ruamel",
    "pydantic",
    "dvc",
    "papermill",
    "IPython",
    "nbformat",
    "nbclient",
    "nbconvert",
    "typer",
    "jinja2",
    "distributed",
    "ipywidgets",
    "anywidget",
}


def level(name, layers, depth):
    """The layer of a module, by the part of its name at a depth."""
    part = name.split(".")[depth]
    (found,) = [k for k, layer in enumerate(layers) if part in layer]
    return found


def folder(name, depth):
    """The folder at a depth that a module is in; None for one that stands there itself."""
    parts = name.split(".")
    return parts[depth] if len(parts) > depth + 1 else None


def assert_downward(names, layers, depth):
    for name in names:
        for other in imports_of_module(name):
            if other in names:
                lower = level(other, layers, depth) < level(name, layers, depth)
                place = folder(name, depth)
                inside = place is not None and place == folder(other, depth)
                assert lower or inside, f"{name} imports {other}"


def test_every_module_has_a_layer():
    named = set().union(*LAYERS)
    assert {name.split(".")[1] for name in MODULES} == named
    ours = {name.split(".")[2] for name in MODULES if name.startswith("ancer.workspace.")}
    assert ours == set().union(*WORKSPACE_LAYERS)


def test_modules_import_only_from_layers_below():
    assert_downward(set(MODULES), LAYERS, 1)


def test_modules_of_the_workspace_import_only_from_layers_below():
    ours = {name for name in MODULES if name.startswith("ancer.workspace.")}
    assert_downward(ours, WORKSPACE_LAYERS, 2)


def test_no_two_modules_import_each_other():
    for name in MODULES:
        for other in imports_of_module(name):
            assert name not in closure([other]), f"{name} and {other} import each other"


def test_what_chooses_theta_and_what_certifies_know_nothing_of_each_other():
    """theta is fixed before certification noise is drawn."""
    optimization = {name for name in MODULES if name.startswith("ancer.optimization.")}
    certification = {"ancer.certification", "ancer.selection"}
    assert len(optimization) >= 3
    assert not closure(optimization) & certification
    assert not closure(certification) & optimization


def test_training_models_and_datasets_know_nothing_of_each_others_or_of_the_workspace():
    kinds = ("training", "models", "datasets")
    for kind in kinds:
        modules = [name for name in MODULES if name.startswith(f"ancer.{kind}.")]
        others = tuple(f"ancer.{other}." for other in (*kinds, "workspace") if other != kind)
        assert modules
        assert not [name for name in closure(modules) if name.startswith(others)]


# --- the method alone

# measures are of tables, which certificates make where they are asked; commands are typer's
ABOVE = ("ancer.workspace.", "ancer.measures", "ancer.commands.")
METHOD = {name: path for name, path in MODULES.items() if not name.startswith(ABOVE)}


@pytest.mark.parametrize("name", METHOD)
def test_a_module_outside_the_workspace_imports_nothing_of_the_workspace(name):
    """A function that makes a table or a plot may, when it is called."""
    found = set()
    for node in ast.parse(METHOD[name].read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    assert not {module.partition(".")[0] for module in found} & FORBIDDEN
    assert not [module for module in found if module.startswith("ancer.workspace")]


def test_public_names_load_nothing_of_the_workspace():
    """In a fresh process, all of them used."""
    code = """
import sys
import ancer
for name in ancer.__all__:
    assert getattr(ancer, name) is not None
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded and "ancer.certification" in loaded
    assert not {name.partition(".")[0] for name in loaded} & FORBIDDEN
    assert not [name for name in loaded if name.startswith("ancer.workspace")]


def test_a_certificate_loads_nothing_that_it_does_not_use():
    """What takes half a second or more each."""
    code = """
import sys, torch, ancer
x = torch.tensor([[0.9, 0.1]])
ancer.certify(torch.nn.Identity(), x, ancer.GaussianNoise(0.25), n=1000)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unused = {"torch._dynamo", "torch._inductor", "scipy.stats", "torchvision"}
    assert not set(done.stdout.split()) & unused


def test_all_modules_of_the_method_load_nothing_of_the_workspace():
    names = ", ".join(METHOD)
    code = f"import sys, {names}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded and not loaded & FORBIDDEN


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys\nimport ancer\nancer.__version__\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "numpy", "scipy", "pandas", "matplotlib"}


def test_public_names_exist():
    for name in ancer.__all__:
        assert getattr(ancer, name) is not None
    assert set(public_names()) == set(ancer.__all__)
    for name, home in public_names().items():
        assert home in MODULES and not home.startswith("ancer.workspace")
        assert name in dir(ancer)
    with pytest.raises(AttributeError, match="attribute certifi"):
        _ = ancer.certifi


# --- sizes


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_small(name):
    assert len(MODULES[name].read_text().splitlines()) <= 300


def test_folders_hold_at_most_a_dozen_modules():
    folders = {path.parent for path in PATHS}
    assert len(folders) >= 10
    for place in folders:
        modules = [path for path in place.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 12, f"{place.name} holds {len(modules)}"


def test_files_of_tests_have_names_of_their_own():
    """No package holds them: pytest tells them apart by their names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)) and not list((ROOT / "tests").rglob("__init__.py"))


# --- the environment, and what is committed


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_environment_names_the_same_packages():
    conda = read_yaml(ROOT / "environment.yml")["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    workspace = project()["optional-dependencies"]["workspace"]
    assert sorted(pip) == sorted([*project()["dependencies"], *workspace, "-e ."])


def test_lock_holds_exact_versions_of_every_dependency_without_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "torch==2.13.0" not in lock
    pinned = {re.match(r"[a-z0-9.-]+", line)[0] for line in lock.splitlines()}
    extras = project()["optional-dependencies"]
    wanted = list(project()["dependencies"])
    for extra in ("workspace", "test", "dask", "explore", "imagenet", "diffusers"):
        wanted += extras[extra]
    names = {re.match(r"[a-z0-9.-]+", line)[0].replace(".", "-") for line in wanted}
    assert names <= {name.replace(".", "-") for name in pinned}
    assert all("==" in line for line in lock.splitlines())


def third_party(path):
    """What a module imports from outside, by its top names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"ancer"}


def test_every_package_that_is_imported_is_a_dependency():
    named = {"PIL": "pillow", "ruamel": "ruamel.yaml", "sklearn": "scikit-learn"}
    extras = project()["optional-dependencies"]
    wanted = list(project()["dependencies"])
    for extra in ("workspace", "dask", "explore", "timm", "imagenet"):
        wanted += extras[extra]
    packages = {re.match(r"[a-z0-9.-]+", line)[0].replace("-", "_") for line in wanted}
    # brought by others, for which they are made
    brought = {"pygments", "traitlets", "dask", "IPython", "pydantic_core"}
    for path in PACKAGE.rglob("*.py"):
        for name in third_party(path):
            package = named.get(name, name).replace("-", "_")
            assert package in packages | brought, f"{path.name} imports {name}"


def test_committed_results_hold_no_time_path_or_date():
    folders = ["results", "profiles/*/results"]
    command = ["git", "ls-files", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = r"20\d\d-\d\d-\d\d|/home/|/root/|/tmp/|site-packages|\d s left|Traceback"
    for path in [ROOT / line for line in listed.stdout.splitlines()]:
        if path.is_file() and path.parent.name != "timing" and path.suffix != ".png":
            text = path.read_text(errors="replace")  # a PDF holds compressed parts
            text = re.sub(r'"image/png": "[^"]*"', "", text)
            assert not re.search(forbidden, text), path
