"""Commands for a model of one's own: certify, predict, what a run says, what a machine has."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

Arch = Annotated[
    str, typer.Option(help="resnet20, torchvision:resnet18, timm:... or package.module:function.")
]
Weights = Annotated[
    Path, typer.Option(help="A file of weights: safetensors, or what torch.save wrote.")
]
Data = Annotated[
    str,
    typer.Option(
        help="digits, torchvision:..., or a folder or archive <path>/test/<class>/<image>; "
        "<path>@224 scales and crops."
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        help="A file with a class a line, in the order of the network's outputs, of which the "
        "images may show a few; by default the classes of the images, sorted."
    ),
]
Sigma = Annotated[float, typer.Option(help="Standard deviation of the training noise.")]
NoiseName = Annotated[str, typer.Option(help="gaussian (l2), uniform or splitting (l1).")]
Draws = Annotated[int, typer.Option("--n", help="Draws of one image.")]
Alpha = Annotated[float, typer.Option(help="Failure probability of one image.")]
Seed = Annotated[int, typer.Option(help="Of all random streams.")]
Images = Annotated[int | None, typer.Option(help="The first so many images; all by default.")]
Every = Annotated[int, typer.Option(help="Every so many of the images.")]
Exact = Annotated[bool, typer.Option(help="Noise on the images' lattice, floating-point sound.")]
Mean = Annotated[
    str, typer.Option(help="Of the network's input, a number a channel: 0.485,0.456,0.406.")
]
Std = Annotated[str, typer.Option(help="Its standard deviation likewise: 0.229,0.224,0.225.")]
Batch = Annotated[int, typer.Option(help="Rows of one forward pass; bounds the memory.")]
Dtype = Annotated[str, typer.Option(help="float32, or bfloat16 where the machine has it.")]


def explained(command: Callable) -> Callable:
    """The command; what a user can mend is one line on stderr and exit code 1, no traceback."""

    @wraps(command)
    def run(*args, **options):
        try:
            return command(*args, **options)
        except ImportError as error:
            said = f"{error}: pip install 'ancer[workspace]' has all that data and notebooks need"
        except (ValueError, TypeError, OSError, MemoryError) as error:
            said = str(error)
        typer.echo(f"error: {said}", err=True)
        raise typer.Exit(code=1)

    return run


def certify(
    arch: Arch,
    weights: Weights,
    data: Data,
    sigma: Sigma,
    out: Annotated[Path, typer.Option(help="Where the run is kept; run again to go on with it.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="fixed, isotropic or anisotropic; several times for several."),
    ] = None,
    noise: NoiseName = "gaussian",
    n: Draws = 10_000,
    alpha: Alpha = 0.001,
    seed: Seed = 0,
    images: Images = None,
    every: Every = 1,
    classes: Classes = None,
    exact: Exact = False,
    mean: Mean = "",
    std: Std = "",
    batch_size: Batch = 200,
    dtype: Dtype = "float32",
) -> None:
    """Certify a model's answers on images, each method beside the others.

    Writes certificates.csv and all of each certificate into OUT, and prints a table; a run that was
    killed goes on where it stopped.

    Example:
      ancer certify --arch torchvision:resnet18 --weights w.safetensors --data photos/
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --sigma 0.25 --images 100 --out run/
    """
    from ancer.job import METHODS, evaluate

    found, _, classifier = _opened(
        data, classes, images, every, noise, sigma, arch, weights, (mean, std), batch_size, dtype
    )
    results = evaluate(
        classifier,
        found.images,
        found.labels,
        sigma=sigma,
        noise=noise,
        methods=method or [*METHODS],
        n=n,
        alpha=alpha,
        seed=seed,
        exact=exact,
        lattice=found.lattice or 1 / 255,
        indices=found.indices,
        out=out,
        progress=sys.stderr.isatty(),
    )
    _print_summary(results)
    typer.echo(f"All of it: {out / 'certificates.csv'}; as a curve: ancer report {out}")


def predict(
    arch: Arch,
    weights: Weights,
    data: Data,
    sigma: Sigma,
    noise: NoiseName = "gaussian",
    n: Draws = 1000,
    alpha: Alpha = 0.001,
    seed: Seed = 0,
    images: Images = None,
    every: Every = 1,
    classes: Classes = None,
    exact: Exact = False,
    mean: Mean = "",
    std: Std = "",
    batch_size: Batch = 200,
    dtype: Dtype = "float32",
) -> None:
    """Print the smoothed model's answer to each image as CSV: index, label, prediction.

    An answer is the class of the smoothed model with probability at least 1 - ALPHA, or abstains.

    Example:
      ancer predict --arch resnet20 --weights w.safetensors --data torchvision:CIFAR10 --sigma 0.25
    """
    from ancer.certification import predict as answer
    from ancer.regions.region import ABSTAIN

    found, law, classifier = _opened(
        data, classes, images, every, noise, sigma, arch, weights, (mean, std), batch_size, dtype
    )
    answers = answer(
        classifier,
        found.images,
        law,
        n=n,
        alpha=alpha,
        seed=seed,
        exact=exact,
        lattice=found.lattice or 1 / 255,
        indices=found.indices,
    )
    typer.echo("index,label,prediction")
    for index, label, number in zip(found.indices, found.labels, answers.tolist(), strict=True):
        said = "abstains" if number == ABSTAIN else found.classes[number]
        typer.echo(f"{index},{found.classes[label]},{said}")


def report_run(run: Path) -> None:
    """Print what a run of `ancer certify` says, and draw its curves into curve.png."""
    import matplotlib.pyplot as plt

    from ancer.certificates.results import Results

    plt.switch_backend("agg")
    results = Results.load(run)
    _print_summary(results)
    results.plot()
    plt.savefig(run / "curve.png", dpi=150, bbox_inches="tight")
    plt.close()
    typer.echo(f"certified accuracy: {run / 'curve.png'}")


def info() -> None:
    """Print versions, devices, threads, and whether bfloat16 is fast here."""
    import platform
    from importlib.metadata import version

    import torch

    from ancer.evaluation.arithmetic import device, device_name, emulates_bfloat16

    here = device()
    lines = {name: version(name) for name in ("ancer", "torch", "numpy", "scipy")}
    lines["python"] = platform.python_version()
    lines["device"] = f"{here.type}, {device_name(here)}"
    lines["threads"] = str(torch.get_num_threads())
    slow = emulates_bfloat16(here)
    lines["bfloat16"] = "emulated, slower than float32" if slow else "yes"
    for name, value in lines.items():
        typer.echo(f"{name:10}{value}")


def say_if_slow(dtype: str) -> None:
    """Say on stderr that bfloat16 is asked for where it is slower than float32."""
    from ancer.evaluation.arithmetic import device, emulates_bfloat16

    if dtype == "bfloat16" and emulates_bfloat16(device()):
        typer.echo(
            "this processor has no bfloat16: networks run several times slower in it than in "
            "float32 (dtype)",
            err=True,
        )


def _lines(path: Path | None) -> list[str] | None:
    """The lines of a file, without the empty ones."""
    if path is None:
        return None
    return list(filter(None, path.read_text().splitlines()))


def _opened(
    data, classes, images, every, noise, sigma, arch, weights, normalize, batch_size, dtype
):
    """The images, the noise round them, and the network as it is evaluated."""
    from ancer.classifier import Classifier
    from ancer.datasets.loading import load
    from ancer.evaluation.arithmetic import device
    from ancer.models.weights import load_weights
    from ancer.noise.named import noise_named

    say_if_slow(dtype)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where functions that --arch and --data name may be
    found = load(data, images=images, every=every, classes=_lines(classes))
    law = noise_named(noise, sigma, found.lattice)
    numbers = [[float(part) for part in text.split(",") if part] for text in normalize]
    statistics = dict(zip(("mean", "std"), numbers, strict=True)) if any(numbers) else None
    net = load_weights(weights, arch=arch, classes=len(found.classes), normalize=statistics)
    return found, law, Classifier(net.to(device()), batch_size=batch_size, dtype=dtype)


def _print_summary(results) -> None:
    import numpy as np

    rounded_down = np.floor(1e4 * results.summary()) / 1e4
    typer.echo(rounded_down.to_string())
