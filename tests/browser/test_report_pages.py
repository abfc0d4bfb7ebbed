"""The report in a browser, as wide as a phone and a desk, light and dark, from the disk."""

import shutil

import pytest
from stages import PICTURES

from ancer.workspace.fingerprints import OF_EXPERIMENT
from ancer.workspace.report.site import write_report

pytestmark = pytest.mark.slow
WIDTHS = {"phone": 390, "desk": 1280}


@pytest.fixture(scope="module")
def site(ran, lab):
    folder = lab.folder / "results/notebooks"
    folder.mkdir(exist_ok=True)
    for name in ran:
        stem = f"{name}-digits-l2-025" if name in OF_EXPERIMENT else name
        if name != "index":
            shutil.copy(lab.folder / f"notebooks/{name}.ipynb", folder / f"{stem}.ipynb")
    return write_report(lab.folder).parent


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_whole_and_fit(browser, site, width, scheme):
    viewport = {"width": WIDTHS[width], "height": 900}
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    asked = []
    failed = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        page.wait_for_function("[...document.images].every((i) => i.complete)")
        assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)"), path.name
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= WIDTHS[width], f"{path.name} is too wide"
        size = float(page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)"))
        assert size >= 15
        if path.stem in ("index", "rows-digits-l2-025", "notebook-optimize-digits-l2-025"):
            picture = PICTURES / f"report-{path.stem}-{width}-{scheme}.png"
            page.screenshot(path=picture, full_page=True)
    assert not failed and all(url.startswith(("file:", "data:")) for url in asked), (failed, asked)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colors = ground.removeprefix("rgb(").removesuffix(")").split(",")
    light = sum(map(int, colors)) > 380
    assert light == (scheme == "light")
    context.close()


def assert_whole(report):
    """Its tables, its pictures and its style are there."""
    report.locator("h2#T1").wait_for(timeout=60_000)
    widths = report.locator("img").evaluate_all("images => images.map((i) => i.naturalWidth)")
    assert len(widths) > 10 and all(widths)
    size = report.locator(".numbers strong").first.evaluate("e => getComputedStyle(e).fontSize")
    assert float(size.removesuffix("px")) > 30


def test_report_is_whole_inside_jupyterlab(ran, opened):
    """As the output of its notebook, and as a file in its viewer."""
    notebook = opened("report")
    notebook.run()
    assert_whole(notebook.page.frame_locator(".jp-OutputArea iframe"))
    notebook.open("results/report/report.html")
    assert_whole(notebook.page.frame_locator(".jp-HTMLViewer iframe"))
    notebook.page.screenshot(path=PICTURES / "report-in-lab.png")
    notebook.menu("File", "Close Tab")
    notebook.close()


def test_columns_sort_and_lines_are_filtered(browser, site):
    page = browser.new_page()
    page.goto((site / "rows-digits-l2-025.html").as_uri())
    table = page.locator("table").first
    names = table.locator("th").all_inner_texts()
    column = names.index("radius") + 1
    table.locator("th", has_text="radius").first.click()
    cells = table.locator(f"tbody td:nth-child({column})").all_inner_texts()
    radii = [float(text) for text in cells if text]
    assert radii in (sorted(radii), sorted(radii, reverse=True)) and len(radii) > 1
    index = table.locator(f"tbody td:nth-child({names.index('idx') + 1})").first.inner_text()
    page.fill("input.filter", index)
    assert table.locator("tbody tr:visible").count() < len(cells)
    page.close()


def test_a_number_leads_to_its_rows(browser, site):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator("#T1 + .scroll tbody a").last.click()
    assert "rows-digits-l2-025.html#" in page.url
    assert page.locator(":target").inner_text().endswith(("certificate alone", "with memory"))
    page.close()
