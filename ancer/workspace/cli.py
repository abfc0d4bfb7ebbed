"""The command `ancer`: what the pipeline and `make` call beside the notebooks."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Certified robustness by anisotropic randomized smoothing: the workspace's commands.",
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


@app.command()
def report(profile: ProfileFolder = None) -> None:
    """Write the report: tables, figures, rows and notebooks as pages for a browser."""
    from ancer.workspace.report.site import write_report

    typer.echo(write_report(profile))


@app.command()
def strip(notebooks: Annotated[list[Path], typer.Argument(help="Notebooks (.ipynb).")]) -> None:
    """Strip notebooks of outputs, counts and ids; exit 1 where that changed one."""
    from ancer.workspace.notebooks import strip_file

    changed = list(filter(strip_file, notebooks))
    for path in changed:
        typer.echo(f"stripped {path}")
    raise typer.Exit(code=int(bool(changed)))
