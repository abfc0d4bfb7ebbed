"""The command `ancer`: for a model of one's own, and what the pipeline and `make` call."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ancer.commands import model

app = typer.Typer(
    help="Certified robustness by anisotropic randomized smoothing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ProfileFolder = Annotated[
    Path | None,
    typer.Option("--profile", help="A folder with params.yaml; the nearest one upwards if none."),
]


@app.command()
def sources(
    notebooks: Annotated[Path, typer.Argument(help="The folder of the notebooks.")],
    profile: ProfileFolder = None,
) -> None:
    """Check params.yaml, and write what each stage depends on to .build/fingerprints."""
    from ancer.workspace.cluster import check_cluster
    from ancer.workspace.digests import data_digests
    from ancer.workspace.experiment import Profile
    from ancer.workspace.fingerprints import write_fingerprints
    from ancer.workspace.methods import check_parameters
    from ancer.workspace.parameters.toward import check_toward
    from ancer.workspace.stages.train import check_under

    opened = Profile.open(profile)
    check_parameters(opened.parameters)
    check_toward(opened.parameters)
    check_cluster(opened.parameters.cluster)
    folder = opened.folder / ".build/fingerprints"
    digests = data_digests(opened.folder, opened.parameters)
    check_under(opened)
    write_fingerprints(notebooks, opened.parameters, folder, digests=digests)
    model.say_if_slow(opened.parameters.evaluate.dtype)


@app.command()
def parameters() -> None:
    """Write all that params.yaml may hold, as the page docs/parameters.md."""
    from ancer.workspace.parameters.table import parameter_tables

    typer.echo(parameter_tables(), nl=False)


@app.command()
def timing(profile: ProfileFolder = None) -> None:
    """Write T4, seconds per image of each method, beside the seconds of the stages."""
    from ancer.workspace.experiment import Profile
    from ancer.workspace.tables.comparisons import timing_table
    from ancer.workspace.tables.writing import write_table

    opened = Profile.open(profile)
    write_table(timing_table(opened), opened.results("timing") / "T4", digits=4)


for command in (model.certify, model.predict, model.info):
    app.command()(model.explained(command))


@app.command()
@model.explained
def report(
    run: Annotated[
        Path | None, typer.Argument(help="The folder of an `ancer certify`; none: a profile.")
    ] = None,
    profile: ProfileFolder = None,
) -> None:
    """Say what a run found, with curves; or write a profile's report, pages for a browser."""
    if run is not None:
        model.report_run(run)
        return
    from ancer.workspace.report.site import write_report

    typer.echo(write_report(profile))


@app.command()
def strip(
    notebooks: Annotated[
        list[Path], typer.Argument(help="Notebooks (.ipynb); - reads one and prints it.")
    ],
) -> None:
    """Strip notebooks of outputs, counts and ids; exit 1 where that changed one."""
    from ancer.workspace.notebooks import strip_file, stripped_text

    if notebooks == [Path("-")]:  # as git's filter calls it, so that a run changes no file for git
        typer.echo(stripped_text(sys.stdin.read()), nl=False)
        return
    changed = list(filter(strip_file, notebooks))
    for path in changed:
        typer.echo(f"stripped {path}")
    raise typer.Exit(code=int(bool(changed)))
