"""The report in a browser, at the width of a phone and of a desk, light and dark, straight from the disk."""

import shutil

import pytest
from stages import PICTURES

from ancer import report

pytestmark = pytest.mark.slow
WIDTHS = {"phone": 390, "desk": 1280}


@pytest.fixture(scope="module")
def site(ran, lab):
    folder = lab.folder / "results/notebooks"
    folder.mkdir(exist_ok=True)
    for name in ran:
        stem = f"{name}-digits-l2-0.25" if name in report.STAGES else name
        if name != "index":
            shutil.copy(lab.folder / f"notebooks/{name}.ipynb", folder / f"{stem}.ipynb")
    return report.write_report(lab.folder).parent


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_whole_and_fit(browser, site, width, scheme):
    context = browser.new_context(
        viewport={"width": WIDTHS[width], "height": 900}, color_scheme=scheme
    )
    page, asked, failed = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        page.wait_for_function("[...document.images].every((i) => i.complete)")
        assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)"), path.name
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width], (
            f"{path.name} is too wide"
        )
        size = float(page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)"))
        assert size >= 15
        if path.stem in ("index", "rows-digits-l2-0.25", "notebook-optimize-digits-l2-0.25"):
            page.screenshot(
                path=PICTURES / f"report-{path.stem}-{width}-{scheme}.png", full_page=True
            )
    assert not failed and all(url.startswith(("file:", "data:")) for url in asked), (failed, asked)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(v) for v in ground.removeprefix("rgb(").removesuffix(")").split(",")) > 380
    assert light == (scheme == "light")
    context.close()


def test_a_number_leads_to_its_rows(browser, site):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator("#T1 + .scroll tbody a").last.click()
    assert "rows-digits-l2-0.25.html#" in page.url
    assert page.locator(":target").inner_text().endswith(("certificate alone", "with memory"))
    page.close()
