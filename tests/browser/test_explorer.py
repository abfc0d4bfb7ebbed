"""The explorer, with a mouse and a keyboard.

What is moved changes what is drawn and the numbers beside it.
"""

import re

import pytest
from stages import PICTURES

from ancer.workspace.explorer.study import Study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def explorer(ran, opened):
    notebook = opened("explore")
    notebook.run()
    notebook.page.wait_for_selector(".ancer-pictures canvas", timeout=60_000)
    notebook.page.wait_for_selector(".ancer-plane ellipse", timeout=60_000)
    yield notebook
    notebook.close()


def pixels(page):
    """What the pictures show: title -> data."""
    script = """() => [...document.querySelectorAll(".ancer-row figure")].map((figure) => [
        figure.querySelector("figcaption").textContent.split(",")[0],
        figure.querySelector("canvas").toDataURL(),
    ])"""
    return dict(page.evaluate(script))


def text(page, place):
    return page.locator(place).first.inner_text()


def change(page, action, what):
    """Do something and wait until `what` changes."""
    before = what()
    action()
    for _ in range(2400):
        page.wait_for_timeout(50)
        if what() != before:
            return
    raise AssertionError("nothing changed")


def choose(page, label, value):
    page.locator(".widget-dropdown", has_text=label).locator("select").select_option(label=value)


def verdict(page):
    return text(page, ".widget-html:has-text('The network says')")


def test_slider_changes_pictures_and_numbers(explorer):
    page = explorer.page
    assert not explorer.foreign
    before = pixels(page)
    assert list(before) == ["image", "theta", "semi-axes", "perturbation", "perturbed image"]
    assert "l2 size 0.000" in verdict(page)
    handle = page.locator(".widget-slider:has-text('size') .noUi-handle").first
    for _ in range(5):
        change(page, lambda: handle.press("PageUp"), lambda: verdict(page))
    after = pixels(page)
    size = float(re.search(r"l2 size ([\d.]+)", verdict(page))[1])
    assert size > 0.05
    assert before["image"] == after["image"] and before["theta"] == after["theta"]
    assert before["perturbed image"] != after["perturbed image"]
    inside = page.locator(".ancer-table").first.inner_text()
    study = Study("digits-l2-025", profile=explorer.lab.folder)
    look = study.look(0)
    y = look.moved(look.direction("random", "anisotropic"), size)
    for method in study.methods:
        scaled = look.scaled_size(method, y)
        if abs(scaled - 1) > 0.02:
            assert ("inside" if scaled < 1 else "outside") in inside
    page.screenshot(path=PICTURES / "explore-slider.png")


def test_image_method_and_direction_change_what_is_shown(explorer):
    page = explorer.page
    for method in ("Fixed sigma", "Anisotropic (ANCER)"):
        change(
            page,
            lambda name=method: choose(page, "method", name),
            lambda: pixels(page)["theta"],
        )
    for direction in ("gradient", "largest axis", "another image", "Gaussian blur (sigma, pixels)"):
        change(
            page,
            lambda d=direction: choose(page, "direction", d),
            lambda: pixels(page)["perturbation"],
        )
    thumbnails = page.locator(".ancer-strip button")
    assert thumbnails.count() == 6
    change(page, lambda: thumbnails.nth(2).click(), lambda: pixels(page)["image"])
    change(page, lambda: page.keyboard.press("ArrowRight"), lambda: pixels(page)["image"])
    assert thumbnails.nth(3).get_attribute("aria-pressed") == "true"
    choose(page, "images", "largest regions first")
    page.wait_for_function(
        "document.querySelector('.ancer-strip button').title.includes('proxy radius')"
    )
    choose(page, "images", "all, in order")
    page.screenshot(path=PICTURES / "explore-images.png")
    page.locator(".ancer-row canvas").nth(1).hover()
    caption = page.locator(".ancer-row figcaption").nth(1).inner_text()
    assert re.match(r"pixel \(\d, \d\): [\d.]+", caption)


def test_point_can_be_dragged_over_the_moons(explorer):
    page = explorer.page
    plane = page.locator(".ancer-square").first
    plane.scroll_into_view_if_needed()

    def regions():
        return page.locator(".ancer-square svg").first.inner_html()

    def other():
        return page.locator(".ancer-square svg").nth(1).inner_html()

    def table():
        return page.locator(".ancer-table").last.inner_text()

    assert "<ellipse" in regions() and "<polygon" in other()
    box = plane.bounding_box()
    before = (regions(), other(), table())
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.7 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.2 * box["height"], steps=4)
    page.mouse.up()
    for _ in range(100):
        page.wait_for_timeout(100)
        if table() != before[2] and other() != before[1]:
            break
    assert regions() != before[0] and other() != before[1] and table() != before[2]
    change(page, lambda: page.keyboard.press("ArrowLeft"), other)
    page.screenshot(path=PICTURES / "explore-moons.png")


def test_missing_results_say_what_to_run(explorer):
    """While it is open, and from the start."""
    folder = explorer.lab.folder
    moved = [folder / "data/theta/digits-l2-025.safetensors", folder / "data/toy/l2.safetensors"]
    for path in moved:
        path.rename(path.with_suffix(".away"))
    image = explorer.page.locator(".ancer-strip button")

    def error():
        return explorer.page.locator(".ancer-error").all_inner_texts()

    change(explorer.page, lambda: image.nth(1).click(), error)
    assert "run the optimize stage" in error()[0]
    explorer.run()
    explorer.page.wait_for_selector(".ancer-error")
    explorer.page.wait_for_timeout(1000)
    assert "run the optimize stage (dvc repro) first" in error()[0]
    assert "run the toy stage" in error()[1]
    assert explorer.page.locator(".ancer-pictures canvas").count() == 0
    for path in moved:
        path.with_suffix(".away").rename(path)
