"""A headless Chromium, a JupyterLab on a small profile, and pictures of what they show.

The pictures are in .build/screenshots/.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace
from urllib.request import urlopen

import nbformat
import pytest
from nbformat.reader import NotJSONError
from playwright.sync_api import sync_playwright
from stages import LAST, PICTURES, ROOT, STAGES, small

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium found: install the system's package chromium")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab as `jupyter lab` in a project starts it: its folder, address, and token."""
    folder = small(tmp_path_factory.mktemp("lab"), experiments=["digits-l2-025"])
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for path in (folder / "notebooks").glob("*.ipynb"):  # as who wants to see them in the report
        path.write_text(path.read_text().replace("output = None  #", "output = 'results'  #"))
    config = folder / ".jupyter/CONFIG"
    config.mkdir(parents=True)
    shutil.copy(ROOT / "jupyter_lab_config.py", config)  # where `make` puts it in the environment
    (config / "labconfig").mkdir()
    settings = config / "labconfig/default_setting_overrides.json"
    shutil.copy(ROOT / "jupyter_lab_settings.json", settings)
    places = {
        f"JUPYTER_{name}_DIR": str(folder / ".jupyter" / name)
        for name in ("RUNTIME", "CONFIG", "DATA")
    }
    places |= {
        f"JUPYTERLAB_{name}_DIR": str(folder / ".jupyter" / name)
        for name in ("SETTINGS", "WORKSPACES")
    }
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.port=0",
    ]
    with open(folder / "lab.log", "w") as log:
        process = subprocess.Popen(
            [*command, "--IdentityProvider.token=t"],
            cwd=folder,
            env={**os.environ, **places},
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 300
    files = []
    while not files and time.monotonic() < deadline:
        time.sleep(0.2)
        assert process.poll() is None, (folder / "lab.log").read_text()
        files = list((folder / ".jupyter/RUNTIME").glob("jpserver-*.json"))
    time.sleep(0.5)
    address = json.loads(files[0].read_text())["url"]
    yield SimpleNamespace(folder=folder, address=address)
    process.terminate()
    process.wait(timeout=60)


class Notebook:
    """A notebook opened in JupyterLab, driven by its menus; one at a time.

    foreign: requests to anywhere but the server.
    """

    def __init__(self, page, lab, name):
        self.lab = lab
        self.path = lab.folder / f"notebooks/{name}.ipynb"
        self.page = page
        self.foreign = []
        self.page.on("request", self._note)
        self.open(f"notebooks/{name}.ipynb")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.wait(idle=True)

    def _note(self, request):
        if not request.url.startswith(
            (self.lab.address, self.lab.address.replace("http", "ws"), "data:", "blob:")
        ):
            self.foreign.append(request.url)

    def menu(self, *items):
        """Click through a menu of the bar."""
        self.page.locator(".lm-MenuBar-item", has_text=items[0]).first.click()
        self.page.locator(".lm-Menu-item", has_text=items[1]).first.click()

    def open(self, path):
        """A file of the server's folder, in a tab of its own."""
        self.menu("File", "Open from Path")
        self.page.locator(".jp-Dialog input").fill(path)
        self.page.keyboard.press("Enter")

    def wait(self, *, idle, seconds=600):
        """Until the notebook's kernel is idle, or busy."""
        deadline = time.monotonic() + seconds
        wanted = "idle" if idle else "busy"
        ours = f"notebooks/{self.path.name}"
        while time.monotonic() < deadline:
            with urlopen(f"{self.lab.address}api/sessions?token=t") as answer:
                sessions = [s for s in json.load(answer) if s["path"] == ours]
            if sessions and sessions[0]["kernel"]["execution_state"] == wanted:
                return
            self.page.wait_for_timeout(200)
        raise TimeoutError(f"the kernel of {self.path.name} is not {wanted} after {seconds} s")

    def run(self):
        """Run > Run All Cells, to the end."""
        self.menu("Run", "Run All Cells")
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            self.page.wait_for_timeout(300)
            self.wait(idle=True, seconds=900)
            cells = [c for c in self.saved().cells if c.cell_type == "code"]
            stopped = any(o.output_type == "error" for c in cells for o in c.outputs)
            if stopped or all(c.execution_count for c in cells):
                return
        raise TimeoutError(f"{self.path.name} has not run to its end")

    def saved(self):
        """The notebook as it is saved now; of one that is being written, what it becomes."""
        self.page.keyboard.press("Control+s")
        for _ in range(50):
            self.page.wait_for_timeout(400)
            try:
                return nbformat.read(self.path, as_version=4)
            except NotJSONError:
                pass
        raise TimeoutError(f"{self.path.name} is not written to its end")

    def close(self):
        self.page.screenshot(path=PICTURES / f"{self.path.stem}.png")
        self.page.remove_listener("request", self._note)
        self.menu("File", "Close Tab")
        self.page.wait_for_selector(".jp-Notebook", state="detached")


@pytest.fixture(scope="session")
def opened(browser, lab):
    """A function that opens a notebook, in a JupyterLab that stays open."""
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    page.goto(f"{lab.address}lab?token=t&reset", timeout=60_000)
    page.wait_for_selector(".jp-Launcher", timeout=60_000)
    return lambda name: Notebook(page, lab, name)


@pytest.fixture(scope="session")
def ran(opened):
    """Every stage's notebook has been run in JupyterLab, in order.

    name -> (saved notebook, foreign requests)
    """
    done = {}
    for name in ("index", "quickstart", "toy", *STAGES, *LAST, "bases", "report"):
        notebook = opened(name)
        notebook.run()
        done[name] = notebook.saved(), notebook.foreign
        notebook.close()
    return done
