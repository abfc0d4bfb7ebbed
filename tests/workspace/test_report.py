"""The report's pages: every link leads somewhere, every number to its rows, and nothing comes from
a network."""

import base64
import dataclasses
import html
import io
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pandas as pd
import pytest
import torch
from markupsafe import escape
from PIL import Image
from stages import ANCER, EXPERIMENTS, parameters, write_parameters

from ancer.datasets.named import digits
from ancer.regions.region import ABSTAIN, Region
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.explorer.images import _table, _verdict
from ancer.workspace.explorer.study import Study
from ancer.workspace.report.headline import headline
from ancer.workspace.report.pages import script, with_gain, without_constants
from ancer.workspace.report.site import write_report
from ancer.workspace.report.thumbnails import thumbnails
from ancer.workspace.stages.certify import certify_images
from ancer.workspace.stages.figures import regions_shown
from ancer.workspace.stages.memory import answer_queries
from ancer.workspace.stages.volumes import compare_regions
from ancer.workspace.tables.certified import both_answers, write_certified_tables
from ancer.workspace.tables.comparisons import superset_table
from ancer.workspace.tables.intervals import write_interval_table
from ancer.workspace.tables.writing import best_cells, round_down, shown, write_table

NAME = "digits-l2-025"
SAID = "not floating-point sound"
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page links to, what it loads, its anchors, and the texts of its links."""

    def __init__(self, path):
        super().__init__()
        self.links = []
        self.loads = []
        self.anchors = set()
        self.texts = []
        self._link = None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes["id"]} if "id" in attributes else set()
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
            self._link = attributes["href"]
        self.loads += [attributes[key] for key in ("src", "srcset", "data") if key in attributes]
        self.loads += [attributes["href"]] if tag == "link" else []

    def handle_data(self, data):
        if self._link:
            self.texts.append((self._link, data))
            self._link = None


@pytest.fixture(scope="module")
def pages(profile, executed):
    """The report of the small profile: name -> page.

    Its executed notebooks are where the pipeline puts them.
    """
    folder = profile / "results/notebooks"
    folder.mkdir(exist_ok=True)
    for path in executed.values():
        shutil.copy(path, folder / path.name.replace("-.ipynb", ".ipynb"))
    site = write_report(profile).parent
    return {path.name: Page(path) for path in site.glob("*.html")}


def test_there_is_a_page_for_everything(profile, executed, pages):
    notebooks = {f"notebook-{path.stem.removesuffix('-')}.html" for path in executed.values()}
    rows = {f"rows-{name}.html" for name in EXPERIMENTS}
    assert set(pages) == notebooks | rows | {"index.html", "report.html"}
    linked = {urldefrag(link)[0] for link in pages["index.html"].links}
    assert notebooks | rows | {"T1.csv", "T1.tex", "F3.svg", "F3.pdf"} <= linked


def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(profile, pages):
    site = profile / "results/report"
    for name, page in pages.items():
        for link in page.links:
            path, anchor = urldefrag(link)
            assert not re.match("[a-z]+:", link), f"{name} leads to {link}"
            assert (site / (path or name)).is_file(), f"{name} leads to {link}"
            if anchor:
                assert unquote(anchor) in pages[path or name].anchors, f"{name} leads to {link}"
        for source in page.loads:
            there = source.startswith("data:") or (site / source).is_file()
            assert there, f"{name} loads {source}"


def test_rows_have_a_picture_of_each_image_where_the_data_are(profile, pages, monkeypatch):
    text = (profile / f"results/report/rows-{NAME}.html").read_text()
    for index in Experiment.open(NAME, profile=profile).data.indices:
        (picture,) = re.findall(rf"\.picture-{index} {{.*base64,([^)]*)\)", text)
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert image.size == (8, 8)
        assert text.count(f'<span class="picture picture-{index}"></span>{index}<') > 8

    def absent(experiment):
        raise FileNotFoundError("no images there")

    monkeypatch.setattr(Experiment, "data", property(absent))
    assert thumbnails(Experiment.open(NAME, profile=profile)) == {}


def test_one_page_holds_all_and_leads_nowhere_else(profile, pages):
    """As JupyterLab shows it, which follows no links and gives it no files."""
    page = pages["report.html"]
    assert all(link.startswith("#") for link in page.links)
    assert page.loads and all(source.startswith("data:") for source in page.loads)
    assert {"T1", "T3", "T5", "T6", "F3", "glossary"} <= page.anchors
    text = (profile / "results/report/report.html").read_text()
    for name in ("T1", "T2"):
        for label in pd.read_csv(profile / f"results/tables/{name}.csv")["method"]:
            assert str(escape(label)) in text


def test_first_screen_says_what_was_gained(profile, pages):
    """Means over the images of both methods, and of their differences."""
    project = Profile.open(profile)
    rows = project.experiments[NAME].rows().set_index(["method", "idx"])
    found = headline(project)
    radius = rows["correct"] * rows["proxy_radius"]
    more = (radius["anisotropic"] - radius["fixed"]).mean()
    (number,) = [n for n in found["numbers"] if n["name"] == "AC-proxy-R"]
    assert number["value"] == round_down(radius["anisotropic"].mean())
    assert number["more"].startswith(f"{float(round_down(more)):+.3f} [")
    for name in ("index.html", "report.html"):
        text = (profile / "results/report" / name).read_text()
        assert number["more"] in text and found["sentence"] in text


def test_the_best_of_a_column_is_of_methods_on_the_same_images():
    table = pd.DataFrame(
        {
            "training": "a",
            "method": ["fixed", "ours", "slow", "fixed", "published"],
            "answer": [*3 * ["certificate alone"], "with memory", float("nan")],
            "images": [200, 200, 30, 200, float("nan")],
            "ACR": [0.5, 0.7, 0.9, 0.4, 0.8],
            "r = 0": [0.9, 0.9, 1.0, 0.8, 0.9],
        }
    )
    assert best_cells(table) == {(1, "ACR")}


def test_a_notebooks_table_is_rounded_down_with_the_best_bold():
    table = pd.DataFrame({"images": [20, 20], "ACR": [0.5, 0.7499], "draws": ["9", "8"]})
    table["fallback share"] = [0.1, 0.2]  # more of it is not better
    table.index = ["fixed", "ours"]
    page = shown(table, "certified").data
    assert page == shown(table, "certified").data  # no random ids
    assert ">0.749<" in page
    assert page.count("font-weight: bold") == 1 and "#T_certified_row1_col1 {" in page


def test_gains_are_over_the_first_method_on_the_same_images():
    table = pd.DataFrame(
        {"training": [*"aaab"], "images": [200, 200, 30, 200], "ACR": [1, 3, 9, 5]}
    )
    gains = with_gain(table)["ACR gain"]
    assert gains[1] == 2 and gains[[0, 2, 3]].isna().all()


def test_what_all_lines_say_is_said_once():
    columns = [("training", True), ("method", True), ("ACR", False)]
    lines = [[("a", None, False), (name, None, False), ("1", None, False)] for name in "xy"]
    kept, shorter, said = without_constants(columns, lines, ("training", "answer"))
    assert kept == columns[1:] and [len(line) for line in shorter] == [2, 2]
    assert said == "training: a"


def test_numbers_lead_to_the_rows_that_they_are_made_of(profile, pages):
    methods = Profile.open(profile).methods
    table = pd.read_csv(profile / "results/tables/T1-each-sigma.csv")
    answers = pd.read_csv(profile / f"results/memory/{NAME}.csv")
    lines = table[table["answer"] == "with memory"]
    assert len(lines) == 6
    for _, line in lines.iterrows():
        (method,) = [m.name for m in methods.values() if m.label == line["method"]]
        link = f"rows-{NAME}.html#{method}-memory"
        rows = answers.query(f"method == '{method}'")
        acr = round_down(float((rows["correct"] * rows["radius"]).mean()))
        assert (link, acr) in pages["index.html"].texts
        assert f"ACR {acr}" in (profile / f"results/report/rows-{NAME}.html").read_text()
    texts = pages["index.html"].texts
    published = [text for text in texts if text[1] == "0.500" and "fixed" in text[0]]
    text = (profile / "results/report/index.html").read_text()
    assert "published: x" in text and len(published) < text.count("0.500")


def test_formulas_need_no_network(profile, pages):
    site = profile / "results/report"
    for name in pages:
        text = (site / name).read_text()
        prose = re.sub("<pre.*?</pre>", "", text, flags=re.DOTALL)
        assert "mathjax" not in text.lower() and "\\" not in prose, name
    assert "<math" in (site / f"notebook-optimize-{NAME}.html").read_text()


def test_report_is_the_same_each_time(profile, pages):
    site = profile / "results/report"
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    (site / "leftover.html").write_text("")
    another = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [ANCER, "report"]
    done = subprocess.run(
        command, cwd=profile, env=another, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(site / "index.html")
    assert before == {path.name: path.read_bytes() for path in site.iterdir()}


def test_missing_rows_say_what_to_run(profile, executed, tmp_path):
    shutil.copy(profile / "params.yaml", tmp_path)
    message = r"no .*rows/digits-.*\.csv: run the certify notebook \(dvc repro\) first"
    with pytest.raises(FileNotFoundError, match=message):
        write_report(tmp_path)


# --- what params.yaml and data sets say is text, in pages too

EVIL = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"


class Tags(HTMLParser):
    """The elements of a page, and its attributes that are scripts."""

    def __init__(self, text):
        super().__init__()
        self.found = set()
        self.handlers = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.add(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def tables_again(folder):
    """The tables stage, and the records of what else the report reads."""
    project = Profile.open(folder)
    volumes = compare_regions(project)
    rows = {name: both_answers(e) for name, e in project.experiments.items()}
    written = write_certified_tables(project, rows)
    table = superset_table(volumes, project.parameters.volumes.of, project.methods)
    write_table(table, project.results("tables") / "T3", note=project.caveats())
    write_interval_table(project, rows)
    for kind in ("tables", "figures", "coverage", "statistics"):
        project.record(kind)
    return project, [*written, "T3", "T6"]


def test_labels_sources_and_data_sets_are_text_in_pages(profile, pages, tmp_path):
    folder = tmp_path / "profile"
    shutil.copytree(profile, folder)
    values = parameters(folder)
    values["methods"]["fixed"]["label"] = f"Fixed {EVIL}"
    values["published"][0]["source"] = EVIL
    for name in EXPERIMENTS:
        values["experiments"][name]["dataset"] = f"{__name__}:evil"
    write_parameters(folder, values)
    tables_again(folder)
    site = write_report(folder).parent
    for path in site.glob("*.html"):
        ours = f"<script>\n{script()}</script>"  # that sorts tables
        text = path.read_text()
        assert text.count(ours) == 1
        tags = Tags(text.replace(ours, ""))
        assert "script" not in tags.found and not tags.handlers, path.name
    index = (site / "index.html").read_text()
    assert escape(f"Fixed {EVIL}") in index


def test_a_radius_that_is_not_computed_is_no_link(profile, pages, tmp_path):
    """In-box radii of a basis of large blocks."""
    folder = tmp_path / "profile"
    shutil.copytree(profile, folder)
    project, _ = tables_again(folder)
    for name in ("T1", "T1-each-sigma"):
        path = project.results("tables") / f"{name}.csv"
        table = pd.read_csv(path)
        table.loc[table["method"] == "Shaped (cosines)", "AC-in-box-R"] = float("nan")
        path.write_text(table.to_csv(index=False))
    project.record("tables")
    index = write_report(folder).read_text()
    assert "Shaped (cosines)" in index


def evil(split, folder):
    """The digits, under a name of one's own."""
    return digits(split, folder)


def test_class_names_are_text_in_the_explorer(profile, executed):
    study = Study(NAME, profile=profile)
    study.data = dataclasses.replace(study.data, classes=[EVIL] * 10)
    look = study.look(0)
    method = study.methods[0]
    for part in (_verdict(look, method, look.x), _table(look, method, look.x)):
        tags = Tags(part)
        assert not tags.found & {"script", "img"} and not tags.handlers
        assert html.escape(EVIL) in part


# --- what is not floating-point sound says so, wherever a region is shown


def test_every_place_says_what_is_not_floating_point_sound(profile, pages, tmp_path):
    folder = tmp_path / "profile"
    shutil.copytree(profile, folder)
    values = parameters(folder)
    values["certify"]["exact"] = False
    write_parameters(folder, values)
    for name in EXPERIMENTS:
        certify_images(Experiment.open(name, profile=folder))
        answers = answer_queries(Experiment.open(name, profile=folder))
        assert set(answers["arithmetic"]) == {SAID}
    project, written = tables_again(folder)
    note = project.caveats()
    assert note.startswith(SAID.capitalize()) and all(name in note for name in EXPERIMENTS)
    for name in written:
        for ending in ("md", "tex"):
            assert note in (folder / f"results/tables/{name}.{ending}").read_text()
    site = write_report(folder).parent
    index = Tags((site / "index.html").read_text())
    text = (site / "index.html").read_text().lower()
    assert index.found and text.count(SAID) >= len(written) + 6 + 2  # tables, captions, toy
    for name in EXPERIMENTS:
        assert SAID in (site / f"rows-{name}.html").read_text()
    study = Study(NAME, profile=folder)
    look = study.look(0)
    assert SAID in _verdict(look, study.methods[0], look.x)
    # and what is sound does not
    assert Profile.open(profile).caveats() == ""
    sound = Study(NAME, profile=profile).look(0)
    assert SAID not in _verdict(sound, study.methods[0], sound.x)


def test_shown_edges_are_where_regions_end(profile, executed):
    """Where there is a region; it is open. Images from the largest radius to the smallest."""
    experiment = Experiment.open(NAME, profile=profile)
    rows = experiment.rows().query("method == 'anisotropic'").copy()
    rows.loc[rows.index[0], ["prediction", "correct", "radius", "gap"]] = [ABSTAIN, 0, 0.0, 0.0]
    images, edges, titles = regions_shown(experiment, rows, certified=2)
    assert len(images) == len(edges) == len(titles) == 3
    largest = rows.loc[rows["radius"].idxmax()]
    assert titles[0] == f"{largest['label']}\nradius {largest['radius']:.2f}"
    assert edges[-1] is None and titles[-1].endswith(", abstains")
    data = experiment.data.take([int(largest["idx"])])
    theta = experiment.theta(data, experiment.lattice)["anisotropic"][0]
    region = Region(data.images[0], theta * largest["gap"], experiment.norm)
    change = torch.from_numpy(edges[0] - images[0])[None]
    assert region.contains(data.images[0] + 0.999 * change)
    assert not region.contains(data.images[0] + 1.001 * change)
