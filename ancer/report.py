"""A profile's tables, figures, rows and executed notebooks as one static site, to be read without a network."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
from jinja2 import Environment, PackageLoader
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from ancer.captions import CAPTIONS
from ancer.pipeline import load_parameters
from ancer.results import METHODS, NORMS, round_down, summary

TEMPLATES = Environment(loader=PackageLoader("ancer", "web"), trim_blocks=True, lstrip_blocks=True)
TABLES = {
    "T1": "$\\ell_2$ (Gaussian noise), the best over sigma",
    "T2": "$\\ell_1$ (uniform noise), the best over sigma",
    "T3": "how often the anisotropic region contains the other method's",
    "T1-each-sigma": "$\\ell_2$, each sigma",
    "T2-each-sigma": "$\\ell_1$, each sigma",
}
FIGURES = ("toy/F1", "figures/F3", "figures/F4", "figures/F7", "figures/F2", "figures/F5", "toy/F6")
FIGURES = (*FIGURES, "statistics/S1", "statistics/S2", "statistics/S3")
STAGES = ("train", "optimize", "certify", "memory")  # of each experiment, the others are of all together
ANSWERS = {"rows": "certificate alone", "memory": "with memory"}


class _Renderer(IPythonRenderer):
    """nbconvert's, with formulas as MathML, which browsers draw by themselves."""

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<div class="scroll">{_formula(body, "block")}</div>'


def _formula(tex: str, display: str) -> str:
    """MathML, without \\big and the like: latex2mathml writes their sizes in an order that differs from run to run."""
    return convert(re.sub(r"\\[bB]igg?[lr]?(?![a-zA-Z])", "", tex), display=display)


def markdown(source: str) -> str:
    """Markdown as HTML, its formulas as MathML."""
    return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


def write_report(profile: str | Path | None = None) -> Path:
    """Write <profile>/results/report/ anew and return its index.html.

    An index with the tables, whose numbers lead to the rows that they are made of, the figures and the provenance of
    each experiment; a page for each experiment's rows and for each executed notebook. No page needs a network.
    Raises FileNotFoundError that says what to run where a result is missing.
    """
    p = load_parameters(profile=profile)
    results, site = p.folder / "results", p.folder / "results/report"
    _check(results, p.experiments)
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    datasets = sorted({Path(e.dataset).name.partition(".")[0] for e in p.experiments.values()})
    home = f"ancer: {', '.join(datasets)}"

    def write(name: str, title: str, template: str, **values) -> None:
        body = TEMPLATES.get_template(template).render(**values)
        page = TEMPLATES.get_template("page.html").render(title=title, heading=_inline(title), body=body, home=home)
        (site / name).write_text(page)

    style, printed = (Path(__file__).parent / "web/style.css").read_text(), HtmlFormatter().get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    (site / "style.css").write_text(f"{style}\n{printed}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n")
    notebooks = {}
    for path in sorted((results / "notebooks").glob("*.ipynb")):
        title, body = _notebook(path)
        experiment = path.stem.partition("-")[2]
        notebooks[path.stem] = f"notebook-{path.stem}.html"
        write(notebooks[path.stem], f"{title}: {experiment}" if experiment else title, "body.html", body=body)
    for name in p.experiments:
        write(f"rows-{name}.html", f"Rows of {name}", "rows.html", parts=_rows(results, name))
    write(
        "index.html",
        home,
        "index.html",
        experiments=[_experiment(results, e, notebooks) for e in p.experiments.values()],
        images=p.images,
        n=p.certify.n,
        alpha=p.certify.alpha,
        tables=[_table(results, name, p.experiments) for name in TABLES if (results / f"tables/{name}.csv").exists()],
        figures=[figure for key in FIGURES for figure in _figures(results, key, site)],
        notebooks=[(name, page) for name, page in notebooks.items() if not name.startswith(STAGES)],
    )
    return site / "index.html"


def _check(results: Path, experiments: dict) -> None:
    for name in experiments:
        for path in (f"rows/{name}.csv", f"rows/{name}.json", f"memory/{name}.csv"):
            if not (results / path).is_file():
                raise FileNotFoundError(f"no {results / path}: run the pipeline (dvc repro) first")


def _inline(source: str) -> str:
    return markdown(source).strip().removeprefix("<p>").removesuffix("</p>")


def _notebook(path: Path) -> tuple[str, str]:
    """Title and body of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    title, _, notebook.cells[0].source = notebook.cells[0].source.partition("\n")
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.exclude_anchor_links = True
    exporter.register_filter("markdown2html", markdown)
    body, _ = exporter.from_notebook_node(notebook)
    return title.removeprefix("# "), body


def _rows(results: Path, name: str) -> list[dict]:
    """The rows of an experiment by method and kind of answer, and its volumes: what numbers lead to."""
    parts = []
    for kind, answer in ANSWERS.items():
        for method, rows in pd.read_csv(results / f"{kind}/{name}.csv").groupby("method", sort=False):
            means = ", ".join(f"{what} {round_down(value)}" for what, value in summary(rows).items())
            shown = rows.drop(columns=["method", "seed", "arithmetic"], errors="ignore")
            part = {"id": f"{method}-{kind}", "title": f"{METHODS[method]}, {answer}", "text": f"{means}."}
            parts.append({**part, **_cells(shown.map(_six))})
    volumes = pd.read_csv(results / "volumes.csv")
    for against, rows in volumes[volumes["experiment"] == name].groupby("against", sort=False):
        part = {"id": f"volumes-{against}", "title": f"Anisotropic against {METHODS[against]}", "text": ""}
        parts.append({**part, **_cells(rows.drop(columns=["experiment", "against"]).map(_six))})
    return parts


def _six(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _cells(table: pd.DataFrame, links: dict | None = None) -> dict:
    """A table for the template: `columns` as (name, whether of words), `lines` of (text, link or None)."""
    words = [not pd.to_numeric(table[c], errors="coerce").notna().any() for c in table.columns]
    lines = [
        [("" if v != v else v, (links or {}).get((k, c))) for c, v in line.items()]
        for k, line in table.reset_index(drop=True).iterrows()
    ]
    return {"columns": list(zip(table.columns, words, strict=True)), "lines": lines}


def _table(results: Path, name: str, experiments: dict) -> dict:
    """A table whose numbers lead to the rows that they are made of."""
    table, links = pd.read_csv(results / f"tables/{name}.csv"), {}
    if name == "T3":
        places = {label: method for method, label in METHODS.items()}
        for k, line in table.iterrows():
            place = f"rows-{line['experiment']}.html#volumes-{places[line['anisotropic against']]}"
            links |= {(k, column): place for column in table.columns[2:]}
    else:
        each = pd.read_csv(results / f"tables/{name[:2]}-each-sigma.csv")
        keys = [k for k in ("training", "sigma", "method", "answer") if k in table]
        for k, line in table[table["answer"].isin(ANSWERS.values())].iterrows():
            lines = each[(each[keys] == line[keys]).all(axis=1)]
            for column in table.columns.difference(keys):
                sigma = lines.loc[lines[column].idxmax(), "sigma"]
                links[k, column] = _place(experiments, {"T1": 2, "T2": 1}[name[:2]], line, sigma)
    fixed = table["sigma"].map("{:g}".format) if "sigma" in table else None
    shown = table.astype(object).map(round_down)
    shown = shown if fixed is None else shown.assign(sigma=fixed)
    return {"name": name, "caption": _inline(TABLES[name]), **_cells(shown, links)}


def _place(experiments: dict, norm: int, line: pd.Series, sigma: float) -> str:
    """Where the rows of a line of T1 or T2 are."""
    wanted = norm, line["training"], sigma
    (name,) = [n for n, e in experiments.items() if (NORMS[e.noise], e.training, e.sigma) == wanted]
    (method,) = [key for key, label in METHODS.items() if label == line["method"]]
    (kind,) = [key for key, answer in ANSWERS.items() if answer == line["answer"]]
    return f"rows-{name}.html#{method}-{kind}"


def _figures(results: Path, key: str, site: Path) -> list[dict]:
    """Copies beside the pages of a figure, or of that of each experiment."""
    found = [results / f"{key}.png"] if (results / f"{key}.png").exists() else sorted(results.glob(f"{key}-*.png"))
    for png in found:
        for file in (png, png.with_suffix(".svg")):
            shutil.copy(file, site / file.name)
    name = Path(key).name
    return [
        {"name": png.stem, "of": png.stem.removeprefix(name).removeprefix("-"), "caption": _inline(CAPTIONS[name])}
        for png in found
    ]


def _experiment(results: Path, e: SimpleNamespace, notebooks: dict[str, str]) -> dict:
    """What an experiment is, its pages, and where its numbers come from."""
    provenance = pd.json_normalize(json.loads((results / f"rows/{e.name}.json").read_text()), sep=": ")
    text = f"{e.dataset}, {e.arch}, {e.noise} noise of sigma {e.sigma:g}, trained by {e.training}"
    pages = [(stage, notebooks[f"{stage}-{e.name}"]) for stage in STAGES if f"{stage}-{e.name}" in notebooks]
    return {"name": e.name, "text": text, "pages": pages, "provenance": sorted(provenance.iloc[0].items())}


if __name__ == "__main__":
    print(write_report())
