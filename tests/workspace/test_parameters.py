"""params.yaml: what is wrong is named by file, key, value and what is expected, before anything is
written."""

import math
import re
import shutil

import pytest
from dvc.utils.hydra import apply_overrides
from stages import ROOT, parameters, write_parameters
from typer.testing import CliRunner

from ancer.training.loop import Recipe
from ancer.workspace.cli import app
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.methods import check_parameters
from ancer.workspace.parameters.models import Parameters
from ancer.workspace.parameters.reading import profile_folder, read_parameters
from ancer.workspace.parameters.sections import Statistics, Toy
from ancer.workspace.parameters.table import parameter_tables

TEXT = (ROOT / "params.yaml").read_text()
DIGITS = "digits-l2-025"


def opened(folder):
    """A profile as the stage `sources` looks at it before anything is written."""
    profile = Profile.open(folder)
    check_parameters(profile.parameters)
    for experiment in profile.experiments.values():
        assert experiment.methods and experiment.certified_methods and experiment.norm
    return profile


def changed(folder, place, value):
    """The default profile in another folder, with one value changed; place: the keys to it."""
    values = parameters()
    section = values
    for key in place[:-1]:
        section = section.setdefault(key, {})
    section[place[-1]] = value
    return write_parameters(folder, values)


def test_the_default_profile_is_as_the_issue_asks():
    profile = Profile.open(ROOT)
    p = profile.parameters
    assert p.images >= 200 and p.certify.n == 10_000
    in_pixels = ["fixed", "isotropic", "anisotropic"]
    last = ["best", "isotropic-paper", "anisotropic-paper"]
    found = set()
    for e in profile.experiments.values():
        ours = ["shaped", "one-theta"] if e.norm == 2 else []
        assert list(e.certified_methods) == [*in_pixels, *ours, *last]
        found.add((e.section.noise, e.section.sigma))
    assert found == {(noise, sigma) for noise in ("gaussian", "uniform") for sigma in (0.25, 0.5)}


# --- values


@pytest.mark.parametrize(
    "place, value, message",
    [
        # of another type
        ("certify.alpha", "1e-3", "certify.alpha: found '1e-3', expected a number"),
        ("certify.exact", "no", "certify.exact: found 'no', expected true or false"),
        ("certify.n", 1000.5, "certify.n: found 1000.5, expected a whole number"),
        ("certify.methods", "fixed", "certify.methods: found 'fixed', expected a list"),
        ("certify", [], "certify: found [], expected a section of names and values"),
        ("evaluate.fold", 1, "evaluate.fold: found 1, expected true or false"),
        ("images", 10.5, "images: found 10.5, expected a whole number"),
        ("images", None, "images: found None, expected a whole number"),
        ("root", 5, "root: found 5, expected text"),
        ("train.stability.epochs", None, "train.stability.epochs: found None, expected a whole nu"),
        ("train.stability", None, "train.stability: found None, expected a section of names and"),
        ("methods.fixed.label", 5, "methods.fixed.label: found 5, expected text"),
        # true is no number
        ("seed", True, "seed: found True, expected a whole number"),
        ("certify.alpha", True, "certify.alpha: found True, expected a number"),
        (f"experiments.{DIGITS}.sigma", True, f"experiments.{DIGITS}.sigma: found True, expected"),
        # out of their domain
        ("certify.alpha", 5, "certify.alpha: found 5, expected a number < 1"),
        ("certify.alpha", 0, "certify.alpha: found 0, expected a number > 0"),
        ("certify.n", 0, "certify.n: found 0, expected a number >= 1"),
        ("images", 0, "images: found 0, expected a number >= 1"),
        ("seed", -1, "seed: found -1, expected a number >= 0"),
        ("tasks.certify", 0, "tasks.certify: found 0, expected a number >= 1"),
        ("toy.points", [3, -1], "toy.points.1: found -1, expected a number >= 0"),
        ("tables.radii", [-0.5], "tables.radii.0: found -0.5, expected a number >= 0"),
        (f"experiments.{DIGITS}.sigma", -1, f"experiments.{DIGITS}.sigma: found -1, expected a nu"),
        (f"experiments.{DIGITS}.sigma", math.inf, ".sigma: found inf, expected a finite number"),
        ("certify.n", math.nan, "certify.n: found nan, expected a whole number"),
        ("evaluate.dtype", "float16", "evaluate.dtype: found 'float16', expected one of 'float32'"),
        ("train.augmentation.every", 0, "train.augmentation.every: found 0, expected a number >= "),
        ("train.augmentation.lr", 0.0, "train.augmentation: epochs, batch_size and lr must be > 0"),
        ("train.augmentation.crop", -1, "train.augmentation: crop must be a whole number of pixel"),
        ("train.augmentation.optimizer", "adam", "unknown optimizer 'adam'"),
        (
            "train.augmentation.scheme",
            "agmented",
            "train.augmentation: unknown training scheme 'ag",
        ),
        ("train.augmentation.options", {"weight": 3}, "'augmentation' has no option 'weight'"),
        # shares of alpha
        ("methods.best.best_of", {"fixed": 0.0}, "best.best_of.fixed: found 0.0, expected a numbe"),
        ("methods.best.best_of", {"fixed": 0.6, "isotropic": 0.6}, "must sum to at most 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(tmp_path, place, value, message):
    with pytest.raises(ValueError, match=f"params.yaml: .*{re.escape(message)}"):
        opened(changed(tmp_path, place.split("."), value))


@pytest.mark.parametrize(
    "text, n, alpha",
    [
        ("{n0: 100, n: 10000, alpha: 1e-3}", 10_000, 0.001),  # as YAML 1.2 and DVC read it
        ("{n0: 100, n: 1e3, alpha: 0.001}", 1000, 0.001),
        ("{n0: 100, n: 1000.0, alpha: 1.0e-3}", 1000, 0.001),
        ("{n0: 100, n: 10_000, alpha: 1E-3}", 10_000, 0.001),
    ],
)
def test_numbers_may_be_written_as_is_usual(tmp_path, text, n, alpha):
    certify = re.sub(r"^certify:\n(  .*\n)+", f"certify: {text}\n", TEXT, flags=re.MULTILINE)
    assert certify != TEXT
    (tmp_path / "params.yaml").write_text(certify)
    found = read_parameters(tmp_path).certify
    assert (found.n, found.alpha) == (n, alpha) and type(found.n) is int


def test_what_is_not_said_has_its_default(tmp_path):
    values = parameters()
    del values["certify"]["n0"]
    del values["volumes"]
    found = read_parameters(write_parameters(tmp_path, values))
    assert found.certify.n0 == 100 and found.volumes.against == ["fixed", "isotropic"]


@pytest.mark.parametrize(
    "place, message",
    [
        ("images", "params.yaml: images: is missing"),
        (f"experiments.{DIGITS}.sigma", f"params.yaml: experiments.{DIGITS}.sigma: is missing"),
        ("train.augmentation.epochs", "params.yaml: train.augmentation.epochs: is missing"),
    ],
)
def test_missing_parameters_are_named(tmp_path, place, message):
    values = parameters()
    *path, last = place.split(".")
    section = values
    for key in path:
        section = section[key]
    del section[last]
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(write_parameters(tmp_path, values))


def test_published_lines_need_all_that_they_say(tmp_path):
    folder = changed(tmp_path, ["published"], [{"norm": 2}])
    with pytest.raises(ValueError, match=re.escape("params.yaml: published.0.training: is missin")):
        read_parameters(folder)
    folder = changed(tmp_path, ["published"], "nowhere.yaml")
    with pytest.raises(ValueError, match=re.escape("nowhere.yaml is missing")):
        read_parameters(folder)


def test_all_that_is_wrong_is_listed_at_once(tmp_path):
    values = parameters()
    values["seed"] = -1
    values["certify"]["alhpa"] = 0.1
    with pytest.raises(ValueError) as caught:
        read_parameters(write_parameters(tmp_path, values))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["cluster:", "cluster: {}", ""])
def test_no_cluster_means_this_process(tmp_path, text):
    without = re.sub(r"^cluster:.*$", text, TEXT, flags=re.MULTILINE)
    (tmp_path / "params.yaml").write_text(without)
    assert read_parameters(tmp_path).cluster == {}


# --- keys and names


@pytest.mark.parametrize(
    "place, value, message",
    [
        ("certify.alhpa", 0.1, "certify.alhpa: unknown key, did you mean 'alpha'?"),
        ("tabels", {}, "tabels: unknown key, did you mean 'tables'?"),
        ("toy.sigm", 1, "toy.sigm: unknown key, did you mean 'sigma'?"),
        ("train.stability.lrr", 1, "train.stability.lrr: unknown key, did you mean 'lr'?"),
        (f"experiments.{DIGITS}.simga", 1, f"{DIGITS}.simga: unknown key, did you mean 'sigma'?"),
        ("methods.anisotropic.kapa", 1.0, "methods.anisotropic.kapa: optimize_anisotropic has no "),
        ("methods.anisotropic.kapa", 1.0, "has no such option, did you mean 'kappa'?"),
        ("methods.isotropic.kappa", 1.0, "methods.isotropic.kappa: optimize_isotropic has no such"),
        ("methods.fixed.draws", 5, "methods.fixed: without theta a method has no start, opt"),
        ("methods.best.draws", 5, "methods.best: a method with best_of has no theta, start or opt"),
    ],
)
def test_an_unknown_key_is_named_with_the_closest_known_one(tmp_path, place, value, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        opened(changed(tmp_path, place.split("."), value))
    assert "params.yaml: " in str(caught.value)


def test_a_published_recipe_has_its_own_keys(tmp_path):
    folder = changed(tmp_path, ["train", "stability", "scheme"], "published")
    message = "params.yaml: train.stability.batch_size: unknown key, choose one of scheme, source"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(folder)
    recipe = {"scheme": "published", "source": "rs4a"}
    folder = changed(tmp_path, ["train", "stability"], recipe)
    message = "params.yaml: experiments.digits-l1-025.options: must name the file, {file"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(folder)


@pytest.mark.parametrize(
    "place, value, message",
    [
        (f"experiments.{DIGITS}.noise", "gausian", "noise.*'gausian'.* did you mean 'gaussian'"),
        (f"experiments.{DIGITS}.training", "macer", "training: found 'macer', choose one of augm"),
        (f"experiments.{DIGITS}.methods", ["bset"], "methods: found 'bset', did you mean 'best'"),
        ("certify.methods", ["isotropc"], "certify.methods: found 'isotropc', did you mean 'isotr"),
        ("memory.methods", ["bset"], "memory.methods: found 'bset', did you mean 'best'"),
        ("volumes.of", "anisotropc", "volumes.of: found 'anisotropc', did you mean 'anisotropic'"),
        ("volumes.against", ["fixd"], "volumes.against: found 'fixd', did you mean 'fixed'"),
        ("figures.ball", "isotropc", "figures.ball: found 'isotropc', did you mean 'isotropic'"),
        ("figures.region", "fixd", "figures.region: found 'fixd', did you mean 'fixed'"),
        ("statistics.method", "fixd", "statistics.method: found 'fixd', did you mean 'fixed'"),
        ("ablations.start", "fixd", "ablations.start: found 'fixd', did you mean 'fixed'"),
        ("ablations.experiments", ["digits-l2-25"], "experiments: found 'digits-l2-25', did you"),
        ("ablations.theta", "ancer.nothing", "ablations.theta: .*'ancer:nothing'"),
        ("methods.isotropic.start", "fixd", "isotropic.start: found 'fixd', did you mean 'fixed'"),
        ("methods.best.best_of", {"fixd": 0.5}, "best_of: found 'fixd', did you mean 'fixed'"),
        ("methods.isotropic.theta", "nowhere.f", "isotropic.theta: no function 'nowhere:f': No mo"),
        ("methods.isotropic.theta", "ancer.f", "isotropic.theta: no function 'ancer:f': .*attrib"),
    ],
)
def test_an_unknown_name_is_named_with_the_closest_known_one(tmp_path, place, value, message):
    with pytest.raises(ValueError, match=f"params.yaml: .*{message}"):
        opened(changed(tmp_path, place.split("."), value))


@pytest.mark.parametrize(
    "place, options, message",
    [
        ("anisotropic", {"temprature": 0.5}, "no such option, did you mean 'temperature'?"),
        ("anisotropic", {"temperature": "warm"}, "anisotropic.temperature: found 'warm'.*number"),
        ("anisotropc", {"temperature": 0.5}, "found 'anisotropc', did you mean 'anisotropic'?"),
        ("fixed", {"temperature": 0.5}, "fixed.*temperature"),
    ],
)
def test_options_of_an_experiments_methods_are_checked(tmp_path, place, options, message):
    where = ["experiments", "digits-l1-025", "method_options"]
    folder = changed(tmp_path, where, {place: options})
    place = r"params.yaml: experiments\.digits-l1-025\.method_options"
    with pytest.raises(ValueError, match=f"{place}.*{message}"):
        opened(folder)


@pytest.mark.parametrize(
    "place, value, message",
    [
        ("methods.anisotropic.kappa", "big", "found 'big'.*number"),
        ("methods.anisotropic.iterations", 2.5, "found 2.5.*(whole number|integer)"),
        ("methods.anisotropic.iterations", True, "found True.*(whole number|integer)"),
    ],
)
def test_options_of_a_theta_function_have_its_types(tmp_path, place, value, message):
    with pytest.raises(ValueError, match=f"params.yaml: {place}: {message}"):
        opened(changed(tmp_path, place.split("."), value))
    folder = changed(tmp_path, ["methods", "anisotropic", "draws"], 1e1)
    draws = opened(folder).methods["anisotropic"].options["draws"]
    assert draws == 10 and type(draws) is int


def refusal(folder):
    """What the pipeline's first stage says of a profile that it refuses."""
    done = CliRunner().invoke(app, ["sources", str(ROOT / "notebooks"), "--profile", str(folder)])
    assert done.exit_code
    return str(done.exception)


NAMES = ["x$(touch PWNED)", "../../evil", "a b", "-p", ".hidden", "a/b", "a;b", "a'b", "a\nb", ""]


@pytest.mark.parametrize("section", ["experiments", "methods", "train"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_names_are_refused_before_anything_is_written(tmp_path, section, name):
    folder = tmp_path / "profiles/evil"
    folder.mkdir(parents=True)
    known = next(iter(parameters()[section].values()))
    changed(folder, [section, name], known)
    expected = "expected letters, digits, '.', '_', '-', the first a letter or digit"
    message = f"params.yaml: {section}.{name}: found {name!r}, {expected}"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(folder)
    assert message in refusal(folder)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert written == {"profiles", "profiles/evil", "profiles/evil/params.yaml"}


@pytest.mark.parametrize(
    "place, value, message",
    [
        ("cluster", {"lokal": 2}, "cluster must be {} or have one of local, jobqueue, address"),
        (f"experiments.{DIGITS}.dataset", "digit", "dataset: unknown data set 'digit': did you"),
        (f"experiments.{DIGITS}.arch", "resnet2", "arch: unknown architecture 'resnet2': did you"),
        (f"experiments.{DIGITS}.options", {"weight": 1}, "options: the scheme 'augmentation' has"),
        ("ablations.settings", [{}, {"drws": 5}], "ablations.settings.1.drws: optimize_anisotropi"),
        ("ablations.settings", [{"start": "fixd"}], "settings.0.start: found 'fixd', did you mean"),
    ],
)
def test_the_first_stage_finds_what_later_ones_would_stumble_over(tmp_path, place, value, message):
    folder = changed(tmp_path, place.split("."), value)
    assert message in refusal(folder)
    assert not (folder / ".build").exists()


# --- base and start


@pytest.mark.parametrize(
    "place, value, message",
    [
        ("train.stability.base", "augmented", "found 'augmented', did you mean 'augmentation'?"),
        ("experiments.digits-l2-05.base", "digits", "digits-l2-05.base: found 'digits', "),
        ("experiments.digits-l2-05.base", ["digits"], "digits-l2-05.base: found ['digits']"),
        ("experiments.digits-l2-025.base", "digits-l2-05", "digits-l2-025 is a circle"),
        ("train.augmentation.base", "augmentation", "augmentation -> augmentation is a circle"),
        ("train.augmentation.base", "stability", "is a circle"),
        ("methods.isotropic.start", "anisotropic", "isotropic -> anisotropic -> isotropic is a c"),
        ("methods.isotropic.start", "isotropic", "start: isotropic -> isotropic is a circle"),
        ("methods.anisotropic.start", "best", "start: 'best' has best_of, so no theta of its own"),
        ("methods.best.best_of", {"fixed": 0.5, "best": 0.5}, "methods.best.best_of"),
        ("methods.more", {"best_of": {"fixed": 0.5, "best": 0.5}}, "methods.more.best_of"),
        (f"experiments.{DIGITS}", None, f"experiments.{DIGITS}: found None"),
        (f"experiments.{DIGITS}", "digits", f"experiments.{DIGITS}: found 'digits'"),
    ],
)
def test_what_leads_nowhere_or_in_a_circle_is_named(tmp_path, place, value, message):
    with pytest.raises(ValueError, match=f"params.yaml: .*{re.escape(message)}"):
        opened(changed(tmp_path, place.split("."), value))


def test_what_an_entry_does_not_say_is_its_bases():
    p = Profile.open(ROOT)
    stability = p.parameters.train["stability"]
    augmentation = p.parameters.train["augmentation"]
    assert stability == augmentation.model_copy(update={"scheme": "stability"})
    assert stability.epochs == 200
    e = p.experiments["digits-l1-05"]
    assert e.recipe == stability
    assert list(e.section.method_options) == ["anisotropic"]
    assert e.section.method_options["anisotropic"]["temperature"] == 0.25
    assert e.methods["anisotropic"].options["temperature"] == 0.25
    assert "temperature" not in p.experiments[DIGITS].methods["anisotropic"].options


def test_a_base_of_a_base(tmp_path):
    values = parameters()
    values["experiments"]["a"] = {"base": "b", "sigma": 1.0}
    values["experiments"]["b"] = {"base": "digits-l1-05", "noise": "gaussian"}
    e = Experiment.open("a", profile=write_parameters(tmp_path, values))
    assert (e.section.sigma, e.section.noise, e.section.training) == (1.0, "gaussian", "stability")


# --- files


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "params.yaml: expected sections such as 'experiments:', found nothing"),
        ("# nothing\n", "params.yaml: expected sections such as 'experiments:', found nothing"),
        ("digits", "params.yaml: expected sections such as 'experiments:', found 'digits'"),
        ("- 1\n", "params.yaml: expected sections such as 'experiments:', found [1]"),
        ("seed: 0\nimages: 1\nseed: 1\n", 'params.yaml, line 3: found duplicate key "seed"'),
        ("certify:\n  n: 5\n  n: 6\n", 'params.yaml, line 3: found duplicate key "n"'),
        ("certify:\n\tn: 5\n", "params.yaml, line 2: found character '\\t'"),
        ("certify:\n\tn: 5\n", ": indent with spaces, not tabs"),
        ("certify: {n: 5\n", "params.yaml, line 2: expected ',' or '}'"),
        ("seed: *x\n", "params.yaml, line 1: found undefined alias 'x'"),
        ("seed: !!python/object/apply:os.system [ls]\n", "params.yaml, line 1: could not determi"),
        ("seed: \x07\n", "params.yaml"),  # a control character
    ],
)
def test_a_broken_file_is_named_with_the_line(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_of_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "params.yaml").write_bytes(f"{TEXT}# \xe4\n".encode(encoding))
    message = r"params.yaml: is not UTF-8 \(.*\): save it as UTF-8"
    with pytest.raises(ValueError, match=message):
        read_parameters(tmp_path)


@pytest.mark.parametrize("ending, start", [("\r\n", ""), ("\n", "\ufeff")])
def test_files_as_windows_writes_them_are_read(tmp_path, ending, start):
    text = start + TEXT.replace("\n", ending)
    (tmp_path / "params.yaml").write_bytes(text.encode())
    assert read_parameters(tmp_path) == read_parameters(ROOT)


# --- profiles and experiments


def test_missing_profiles_and_experiments_are_named(tmp_path, monkeypatch):
    with pytest.raises(KeyError, match="unknown experiment 'digits-l3': did you mean 'digits-l"):
        Experiment.open("digits-l3", profile=ROOT)
    with pytest.raises(KeyError, match="unknown experiment 'x': choose one of digits-l1-025, dig"):
        Profile.open(ROOT, experiment="x")
    with pytest.raises(FileNotFoundError, match="no params.yaml in profile folder"):
        Profile.open(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    message = f"no params.yaml at or above {tmp_path}: run inside the project or give profile="
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        Profile.open()


def test_profile_is_the_nearest_one_upwards(tmp_path, monkeypatch):
    inner = tmp_path / "profiles" / "x"
    inner.mkdir(parents=True)
    write_parameters(tmp_path, parameters())
    write_parameters(inner, {**parameters(), "seed": 5})
    monkeypatch.chdir(inner)
    assert Profile.open().parameters.seed == 5
    assert profile_folder() == inner
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Profile.open().parameters.seed == 0


def test_overrides_write_elsewhere():
    whole = Experiment.open(DIGITS, profile=ROOT)
    trial = Experiment.open(DIGITS, profile=ROOT, images=3, n=50)
    assert whole.profile.output == ROOT
    assert trial.profile.output == ROOT / ".build/trial/images=3,n=50"
    assert (trial.parameters.images, trial.parameters.certify.n) == (3, 50)
    assert trial.target("rows") == ROOT / f".build/trial/images=3,n=50/results/rows/{DIGITS}.csv"
    assert trial.file("rows") == whole.target("rows")  # none of its own yet
    none = Experiment.open(DIGITS, profile=ROOT, images=None, n=None)
    assert none.profile.output == ROOT


@pytest.mark.parametrize("given, message", [({"images": 0}, "images: found 0"), ({"n": "x"}, "n")])
def test_overrides_are_checked_too(given, message):
    with pytest.raises(ValueError, match=message):
        Profile.open(ROOT, **given)


# --- the page


def test_page_of_all_parameters_is_current():
    """docs/parameters.md, which `ancer parameters` writes."""
    page = (ROOT / "docs/parameters.md").read_text()
    assert page == parameter_tables()
    for section in (Parameters, Toy, Statistics, Recipe):
        fields = getattr(section, "model_fields", None) or section.__dataclass_fields__
        for name in fields:
            assert f"`{name}" in page
    assert page.count("| `alpha` | number > 0 and < 1 | `0.001` |") == 1
    assert not re.search(r"\| *\|$", page, flags=re.MULTILINE)  # each has a meaning


# --- what `dvc exp run -S` does to the file

FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("profiles/*/params.yaml"))]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("n", [500, 123_456])
def test_an_override_of_dvc_changes_nothing_else(folder, n, tmp_path):
    """`dvc exp run -S certify.n=500`, by the function that DVC calls."""
    before = read_parameters(folder)
    copy = tmp_path / "params.yaml"
    shutil.copy(folder / "params.yaml", copy)
    for path in (ROOT / "profiles").glob("*/published.yaml"):  # where the file says it is
        for place in (path.name, f"../{path.parent.name}/{path.name}"):
            (tmp_path / place).parent.mkdir(exist_ok=True)
            if path.parent == folder or place != path.name:
                shutil.copy(path, tmp_path / place)
    apply_overrides(copy, [f"certify.n={n}"])
    after = read_parameters(tmp_path)
    assert after.certify.n == n
    assert after.model_copy(update={"certify": before.certify}) == before
    assert after.certify.model_copy(update={"n": before.certify.n}) == before.certify
    assert list(after.methods) == list(before.methods)  # the order of tables
    assert list(after.experiments) == list(before.experiments)


@pytest.mark.parametrize("name", ["digits-l2-025", "digits-l1-05"])
def test_an_override_of_an_experiment_reaches_those_that_build_on_it_alone(name, tmp_path):
    copy = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", copy)
    apply_overrides(copy, [f"experiments.{name}.sigma=0.75"])
    before = read_parameters(ROOT).experiments
    after = read_parameters(tmp_path).experiments
    for other in before:
        expected = before[other].model_copy(update={"sigma": 0.75} if other == name else {})
        assert after[other] == expected
