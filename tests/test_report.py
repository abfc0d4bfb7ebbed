"""The report's pages: every link leads somewhere, every number to its rows, and nothing comes from a network."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pandas as pd
import pytest

from ancer import report
from ancer.results import round_down

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page links to, what it loads, its anchors, and the texts of its links."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.texts, self._link = [], [], set(), [], None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes["id"]} if "id" in attributes else set()
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
            self._link = attributes["href"]
        self.loads += [attributes[k] for k in ("src", "srcset", "data") if k in attributes]
        self.loads += [attributes["href"]] if tag == "link" else []

    def handle_data(self, data):
        if self._link:
            self.texts.append((self._link, data))
            self._link = None


@pytest.fixture(scope="module")
def pages(profile, executed):
    """The report of the small profile, its executed notebooks where the pipeline puts them: name -> page."""
    folder = profile / "results/notebooks"
    folder.mkdir(exist_ok=True)
    for path in executed.values():
        shutil.copy(path, folder / path.name.replace("-.ipynb", ".ipynb"))
    site = report.write_report(profile).parent
    return {path.name: Page(path) for path in site.glob("*.html")}


def test_there_is_a_page_for_everything(profile, executed, pages):
    notebooks = {f"notebook-{p.stem.removesuffix('-')}.html" for p in executed.values()}
    rows = {"rows-digits-l2-0.25.html", "rows-digits-l1-0.25.html"}
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
            assert source.startswith("data:") or (site / source).is_file(), f"{name} loads {source}"


def test_numbers_lead_to_the_rows_that_they_are_made_of(profile, pages):
    table = pd.read_csv(profile / "results/tables/T1-each-sigma.csv")
    for _, line in table[table["answer"] == "with memory"].iterrows():
        (method,) = [m for m, name in report.METHODS.items() if name == line["method"]]
        link = f"rows-digits-l2-0.25.html#{method}-memory"
        rows = pd.read_csv(profile / "results/memory/digits-l2-0.25.csv").query(f"method == '{method}'")
        acr = round_down(float((rows["correct"] * rows["radius"]).mean()))
        assert (link, acr) in pages["index.html"].texts
        assert f"ACR {acr}" in (profile / "results/report/rows-digits-l2-0.25.html").read_text()
    published = [t for t in pages["index.html"].texts if t[1] == "0.500" and "fixed" in t[0]]
    text = (profile / "results/report/index.html").read_text()
    assert "published: x" in text and len(published) < text.count("0.500")


def test_formulas_need_no_network(profile, pages):
    for name in pages:
        text = (profile / "results/report" / name).read_text()
        prose = re.sub("<pre.*?</pre>", "", text, flags=re.DOTALL)
        assert "mathjax" not in text.lower() and "\\" not in prose, name
    assert "<math" in (profile / "results/report/notebook-optimize-digits-l2-0.25.html").read_text()


def test_report_is_the_same_each_time(profile, pages):
    site = profile / "results/report"
    before = {p.name: p.read_bytes() for p in site.iterdir()}
    (site / "leftover.html").write_text("")
    command, another = [sys.executable, "-m", "ancer.report"], {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run(command, cwd=profile, env=another, check=True)
    assert before == {p.name: p.read_bytes() for p in site.iterdir()}


def test_missing_rows_say_what_to_run(profile, executed, tmp_path):
    shutil.copy(profile / "params.yaml", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no .*rows/digits-.*\.csv: run the pipeline \(dvc repro\) first"):
        report.write_report(tmp_path)
