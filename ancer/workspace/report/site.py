"""A profile's tables, figures, rows and executed notebooks as one site, read from the disk."""

import shutil
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from ancer import __version__
from ancer.measures import INTERVALS, summary_with_fallback
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.figures.captions import CAPTIONS, OF_EXPERIMENTS
from ancer.workspace.fingerprints import OF_EXPERIMENT
from ancer.workspace.places import MADE_FROM
from ancer.workspace.report.contents import CERTIFIED, COVERED, EACH_SIGMA, FIGURES, SUPERSETS
from ancer.workspace.report.headline import MEANING, data_name, headline
from ancer.workspace.report.pages import (
    TEMPLATES,
    cells,
    inline,
    lines_of_images,
    notebook_page,
    script,
    stylesheet,
    texts_of,
    with_gain,
    without_constants,
)
from ancer.workspace.report.thumbnails import embedded, thumbnails
from ancer.workspace.tables.certified import ALONE, TABLES, WITH_MEMORY
from ancer.workspace.tables.intervals import interval_cells
from ancer.workspace.tables.writing import best_cells, present, round_down

KINDS = {"rows": ALONE, "memory": WITH_MEMORY}  # by the folder of the rows
WORDS = ("training", "answer")  # columns that are said once where they are the same
FOLDER_OF = dict(zip(KINDS.values(), KINDS, strict=True))


def write_report(folder: str | Path | None = None) -> Path:
    """Write <profile>/results/report/ anew and return its index.html.

    An index with what was gained, the tables, whose numbers lead to the rows that they are made of,
    the figures and the provenance of each experiment; a page for each experiment's rows and each
    executed notebook; and report.html, the index as one file (JupyterLab follows no links). No page
    needs a network. Raises FileNotFoundError or ValueError that says what to run where a result is
    missing or was made from others than there are.
    """
    profile = Profile.open(folder, stage="report")
    for kind in MADE_FROM:
        profile.verify(kind)
    return _Site(profile).write()


class _Site:
    def __init__(self, profile: Profile):
        self.profile = profile
        self.results = profile.folder / "results"
        self.volumes = profile.volumes()
        self.folder = profile.results("report")
        datasets = set(map(data_name, profile.experiments.values()))
        self.style = stylesheet()
        self.script = script()
        self.home = f"ancer: {', '.join(sorted(datasets))}"

    def write(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        pages = self._notebooks()
        summaries = []
        for name, experiment in self.profile.experiments.items():
            rows = {"parts": list(self._rows(experiment)), "pictures": thumbnails(experiment)}
            self._page(f"rows-{name}.html", f"Rows of {name}", "rows.html", **rows)
            summaries.append(self._experiment(experiment, pages))
        of_all = []
        for name, page in pages.items():
            if not name.startswith(tuple(OF_EXPERIMENT)):
                of_all.append((name, page))
        parameters = self.profile.parameters
        index = {
            "headline": headline(self.profile),
            "experiments": summaries,
            "images": parameters.images or "all",
            "n": parameters.certify.n,
            "alpha": parameters.certify.alpha,
            "tables": list(self._tables()),
            "figures": list(chain.from_iterable(map(self._figures, FIGURES))),
            "notebooks": of_all,
            "meaning": MEANING,
            "version": __version__,
        }
        self._page("report.html", self.home, "index.html", linked=False, **index)
        self._page("index.html", self.home, "index.html", linked=True, **index)
        return self.folder / "index.html"

    def _page(self, name: str, title: str, template: str, **values: Any) -> None:
        body = Markup(TEMPLATES.get_template(template).render(**values))
        page = TEMPLATES.get_template("page.html").render(
            title=title,
            heading=inline(title),
            body=body,
            home=self.home,
            style=self.style,
            script=self.script,
        )
        (self.folder / name).write_text(page)

    def _notebooks(self) -> dict[str, str]:
        """A page for each executed notebook; name -> page."""
        pages = {}
        for path in sorted((self.results / "notebooks").glob("*.ipynb")):
            title, body = notebook_page(path)
            experiment = path.stem.partition("-")[2]
            if experiment:
                title = f"{title}: {experiment}"
            pages[path.stem] = f"notebook-{path.stem}.html"
            self._page(pages[path.stem], title, "body.html", body=body)
        return pages

    def _rows(self, experiment: Experiment) -> Iterator[dict[str, Any]]:
        """The rows of an experiment by method and kind of answer, and its volumes."""
        methods = experiment.methods
        tables = {"rows": experiment.rows(), "memory": experiment.answers()}
        for kind, answer in KINDS.items():
            for method, rows in tables[kind].groupby("method", sort=False):
                numbers = summary_with_fallback(rows, experiment.fallback).items()
                means = ", ".join(f"{what} {round_down(value)}" for what, value in numbers)
                hidden = ["method", "image", "seed", "arithmetic"]
                yield {
                    "id": f"{method}-{kind}",
                    "title": f"{methods[method].label}, {answer}",
                    "text": f"{means}. Noise: {', '.join(rows['arithmetic'].unique())}.",
                    **lines_of_images(rows.drop(columns=hidden, errors="ignore")),
                }
        ours = self.volumes[self.volumes["experiment"] == experiment.name]
        for against, rows in ours.groupby("against", sort=False):
            yield {
                "id": f"volumes-{against}",
                "title": f"{self._compared()} against {methods[against].label}",
                "text": "",
                **lines_of_images(rows.drop(columns=["experiment", "against"])),
            }

    def _tables(self) -> Iterator[dict[str, Any]]:
        """All tables; a number leads to the rows that it is made of."""
        for name, caption in CERTIFIED.items():
            yield from self._certified_table(name, caption, each_sigma=False)
        yield from self._superset_table()
        yield self._table("T5", COVERED, pd.read_csv(self.results / "coverage/T5.csv"), {})
        yield from self._interval_table()
        for name, caption in EACH_SIGMA.items():
            yield from self._certified_table(name, caption, each_sigma=True)

    def _certified_table(
        self, name: str, caption: str, *, each_sigma: bool
    ) -> Iterator[dict[str, Any]]:
        path = self.results / f"tables/{name}-each-sigma.csv"
        if not path.is_file():
            return
        each = pd.read_csv(path)
        shown_name = f"{name}-each-sigma" if each_sigma else name
        table = pd.read_csv(self.results / f"tables/{shown_name}.csv")
        keys = present(table, ("training", "sigma", "method", "answer"))
        links = {}
        for k, line in table[table["answer"].isin(KINDS.values())].iterrows():
            same = each[(each[keys] == line[keys]).all(axis=1)]
            for column in table.columns.difference(keys):
                computed = same[column].dropna()
                if len(computed):
                    best = same.loc[computed.idxmax()]  # of the sigmas that it is the best of
                    links[k, column] = self._place(self._of_sigma(TABLES[name], best), best)
        yield self._table(shown_name, caption, with_gain(table), links, best_cells(table))

    def _superset_table(self) -> Iterator[dict[str, Any]]:
        path = self.results / "tables/T3.csv"
        if not path.is_file():
            return
        table = pd.read_csv(path)
        experiment, against, *numbers = table.columns
        links = {}
        for k, line in table.iterrows():
            method = self.profile.methods.by_label(line[against])
            place = f"rows-{line[experiment]}.html#volumes-{method.name}"
            for column in numbers:
                links[k, column] = place
        yield self._table("T3", SUPERSETS.format(self._compared()), table, links)

    def _interval_table(self) -> Iterator[dict[str, Any]]:
        numbers = pd.read_csv(self.results / "tables/T6.csv")
        table = interval_cells(numbers)
        links = {}
        for k, line in table.iterrows():
            for column in INTERVALS:
                links[k, column] = self._place(line["experiment"], line)
        best = best_cells(numbers)
        yield self._table("T6", "with 95 % intervals over images", table, links, best)

    def _compared(self) -> str:
        """The method whose regions are compared with others'."""
        return self.profile.methods[self.profile.parameters.volumes.of].label

    def _table(
        self,
        name: str,
        caption: str,
        table: pd.DataFrame,
        links: Mapping,
        best: Collection[tuple[Hashable, str]] = (),
    ) -> dict[str, Any]:
        """A table for the template, its lines with memory set apart, and its files."""
        shown = table.astype(object).map(round_down)
        if "sigma" in table:
            shown["sigma"] = table["sigma"].map("{:g}".format)
        made = cells(shown, links, best)
        answers = table.get("answer", pd.Series("", index=table.index))
        parts: dict[bool, list] = {True: [], False: []}  # with memory, or not
        for line, answer in zip(made["lines"], answers, strict=True):
            parts[answer == WITH_MEMORY].append(line)
        columns, lines, same = without_constants(made["columns"], parts[False], WORDS)
        folded_columns, folded, _ = without_constants(made["columns"], parts[True], WORDS)
        return {
            "name": name,
            "caption": inline(caption),
            "same": inline(same),
            "note": inline(self.profile.caveats()),
            "files": self._downloads(name),
            "columns": columns,
            "lines": lines,
            "folded_columns": folded_columns,
            "folded": folded,
            "unchanged": texts_of(folded) <= texts_of(lines),
        }

    def _downloads(self, name: str) -> list[str]:
        """Copies beside the pages of a table's files."""
        paths = []
        for suffix in (".csv", ".tex"):
            for place in ("tables", "coverage"):
                paths.append(self.results / place / f"{name}{suffix}")
        return self._copied(paths)

    def _copied(self, paths: Iterable[Path]) -> list[str]:
        """The names of those that are there, copied beside the pages."""
        names = []
        for path in paths:
            if path.is_file():
                shutil.copy(path, self.folder)
                names.append(path.name)
        return names

    def _place(self, experiment: str, line: pd.Series) -> str:
        """Where the rows of a line with method and answer are."""
        method = self.profile.methods.by_label(line["method"])
        return f"rows-{experiment}.html#{method.name}-{FOLDER_OF[line['answer']]}"

    def _of_sigma(self, norm: int, line: pd.Series) -> str:
        """The experiment of a line of T1 or T2 for one sigma."""
        for name, experiment in self.profile.experiments.items():
            section = experiment.section
            found = (experiment.norm, section.training, section.sigma)
            if found == (norm, line["training"], line["sigma"]):
                return name
        raise ValueError(f"no experiment for {dict(line)}: run the pipeline (dvc repro) again")

    def _figures(self, key: str) -> Iterator[dict[str, Any]]:
        """Copies beside the pages of a figure, or of that of each experiment."""
        name = Path(key).name
        found = [self.results / f"{key}.png"]
        if not found[0].exists():
            experiments = self.profile.experiments
            each = [self.results / f"{key}-{experiment}.png" for experiment in experiments]
            found = list(filter(Path.exists, each))
        note = self.profile.caveats() if name in OF_EXPERIMENTS else ""
        for png in found:
            yield {
                "name": png.stem,
                "files": self._copied(map(png.with_suffix, (".png", ".svg", ".pdf"))),
                "data": embedded(png.read_bytes()),
                "of": png.stem.removeprefix(name).removeprefix("-"),
                "caption": inline(f"{CAPTIONS[name]} {note}"),
            }

    def _experiment(self, experiment: Experiment, pages: Mapping[str, str]) -> dict[str, Any]:
        """What an experiment is, its pages, and where its numbers come from."""
        section = experiment.section
        provenance = pd.json_normalize(experiment.provenance, sep=": ").iloc[0]
        stages = {}
        for stage in OF_EXPERIMENT:
            page = pages.get(f"{stage}-{experiment.name}")
            if page is not None:
                stages[stage] = page
        return {
            "name": experiment.name,
            "text": f"{Path(section.dataset).name}, {section.arch}, {section.noise} noise of sigma "
            f"{section.sigma:g}, trained by {section.training}",
            "pages": list(stages.items()),
            "provenance": sorted(provenance.items()),
        }
