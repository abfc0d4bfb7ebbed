"""The report's pages: every link leads somewhere, every number to its rows, and nothing comes from
a network."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pandas as pd
import pytest
from stages import ANCER, EXPERIMENTS

from ancer.workspace.experiment import Profile
from ancer.workspace.report.site import write_report
from ancer.workspace.tables import round_down

NAME = "digits-l2-025"
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
    assert set(pages) == notebooks | rows | {"index.html"}
    linked = {urldefrag(link)[0] for link in pages["index.html"].links}
    assert notebooks | rows <= linked


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


def test_numbers_lead_to_the_rows_that_they_are_made_of(profile, pages):
    methods = Profile.open(profile).methods
    table = pd.read_csv(profile / "results/tables/T1-each-sigma.csv")
    answers = pd.read_csv(profile / f"results/memory/{NAME}.csv")
    lines = table[table["answer"] == "with memory"]
    assert len(lines) == 3
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
    message = r"no .*rows/digits-.*\.csv: run the pipeline \(dvc repro\) first"
    with pytest.raises(FileNotFoundError, match=message):
        write_report(tmp_path)
