"""The command line for a model of one's own."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import ancer
from ancer.commands.model import say_if_slow
from ancer.datasets.loading import load
from ancer.models.networks import build
from ancer.models.weights import load_weights
from ancer.workspace.cli import app

DIGITS = ["--arch", "digits_cnn", "--data", "digits", "--images", "3", "--sigma", "0.25"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(build("digits_cnn", 10).state_dict(), path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_certify_writes_what_the_api_finds_and_goes_on(weights, tmp_path):
    job = ["certify", *DIGITS, "--weights", weights, "--n", 300, "--out", tmp_path / "run"]
    job += ["--method", "fixed", "--method", "isotropic", "--every", 2, "--exact"]
    done = run(*job)
    assert done.exit_code == 0, done.output
    assert re.search(r"^fixed +3", done.stdout, re.M) and "certificates.csv" in done.stdout
    frame = pd.read_csv(tmp_path / "run/certificates.csv")
    data = load("digits", images=3, every=2)
    assert frame["index"].tolist() == 2 * data.indices
    net = load_weights(weights, arch="digits_cnn", classes=10, normalize=None)
    found = ancer.certify(
        ancer.Classifier(net, batch_size=200),
        data.images,
        ancer.GaussianNoise(0.25),
        n=300,
        exact=True,
        lattice=data.lattice,
        indices=data.indices,
    )
    fixed = frame[frame["method"] == "fixed"]
    assert fixed["radius"].tolist() == [c.radius for c in found]
    before = (tmp_path / "run/fixed/00000000/certificates.safetensors").stat().st_mtime_ns
    again = run(*job)
    assert again.exit_code == 0 and again.stdout == done.stdout
    after = (tmp_path / "run/fixed/00000000/certificates.safetensors").stat().st_mtime_ns
    assert before == after
    other = run(*job, "--seed", 1)
    assert other.exit_code == 1
    assert other.stderr.startswith(f"error: {tmp_path / 'run'} holds a run with other seed: give")

    drawn = run("report", tmp_path / "run")
    assert drawn.exit_code == 0 and "isotropic" in drawn.stdout
    assert (tmp_path / "run/curve.png").read_bytes().startswith(b"\x89PNG")


def test_predict_prints_a_line_an_image(weights):
    done = run("predict", *DIGITS, "--weights", weights, "--n", 300)
    assert done.exit_code == 0, done.output
    head, *lines = done.stdout.splitlines()
    assert head == "index,label,prediction" and len(lines) == 3
    numbers = load("digits", images=3).indices
    for k, line in enumerate(lines):
        index, label, prediction = line.split(",")
        assert int(index) == numbers[k] and int(label) in range(10)
        assert prediction == "abstains" or int(prediction) in range(10)
    sure = run("predict", *DIGITS, "--weights", weights, "--noise", "splitting")
    assert sure.exit_code == 0 and len(sure.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    "change, message",
    [
        (["--weights", "none.safetensors"], "no weights at none.safetensors: put the file there"),
        (["--arch", "resnet21"], "unknown architecture 'resnet21': did you mean"),
        (["--data", "digit"], "digit"),
        (["--sigma", "-1"], "noise scales must be finite and > 0"),
        (["--n", "3"], "n = 3 draws can never certify at alpha = 0.001"),
        (["--noise", "gauss"], "unknown noise 'gauss': did you mean 'gaussian'?"),
        (["--method", "isotropc"], "unknown method 'isotropc': did you mean 'isotropic'?"),
        (["--mean", "0.5"], "a mean and a std for each channel"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(weights, tmp_path, change, message):
    done = run("certify", *DIGITS, "--weights", weights, "--out", tmp_path / "run", *change)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["certify", "predict"])
def test_splits_of_images_without_a_lattice_are_refused_in_the_same_words(
    weights, tmp_path, command
):
    np.savez(
        tmp_path / "own.npz",
        images=np.full((10, 8, 8), 0.123, np.float32),
        labels=np.arange(10),
    )
    given = ["--arch", "digits_cnn", "--weights", weights, "--data", tmp_path / "own.npz"]
    out = ["--out", tmp_path / "run"] if command == "certify" else []
    done = run(command, *given, "--sigma", 0.25, "--noise", "splitting", *out)
    assert done.exit_code == 1
    assert "error: random splits are counted on images whose pixels have levels" in done.stderr


def test_a_folder_without_a_run_is_named(tmp_path):
    done = run("report", tmp_path)
    assert done.exit_code == 1 and "no run at" in done.stderr


def test_info_says_what_the_machine_has():
    done = run("info")
    assert done.exit_code == 0
    said = dict(re.split(r"\s+", line, maxsplit=1) for line in done.stdout.splitlines())
    assert said["ancer"] == ancer.__version__ and said["torch"] == torch.__version__.split("+")[0]
    assert said["threads"] == str(torch.get_num_threads())
    assert said["bfloat16"] in ("yes", "emulated, slower than float32")


@pytest.mark.parametrize("slow", [True, False])
def test_a_dtype_that_is_slow_here_is_said(monkeypatch, capsys, slow):
    monkeypatch.setattr("ancer.evaluation.arithmetic.emulates_bfloat16", lambda device: slow)
    for dtype in ("bfloat16", "float32"):
        say_if_slow(dtype)
        said = "no bfloat16: networks run several times slower" in capsys.readouterr().err
        assert said == (slow and dtype == "bfloat16")


def test_help_of_each_command_has_an_example_or_says_what_it_does():
    for command in ("certify", "predict"):
        assert "Example:" in run(command, "--help").stdout
    assert run("certify").exit_code == 2  # what is missing is typer's to say


def test_a_network_beside_one_and_classes_of_which_images_show_a_few(tmp_path, monkeypatch):
    """As who certifies a network of many classes on a folder of photographs of a few."""
    code = "from torch import nn\ndef build(n):\n"
    code += "    return nn.Sequential(nn.Flatten(), nn.Linear(48, n))\n"
    (tmp_path / "beside_me.py").write_text(code)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    torch.manual_seed(0)
    save_file(
        nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).state_dict(), tmp_path / "w.safetensors"
    )
    for k, name in enumerate(("bee", "dog")):
        picture = tmp_path / f"photos/test/{name}/{k}.png"
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (50 * k, 90, 200)).save(picture)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(filter(None, sys.path)))
    job = ["--arch", "beside_me:build", "--weights", "w.safetensors", "--data", "./photos"]
    job += ["--sigma", "0.25", "--n", "100"]
    done = run("predict", *job, "--classes", "classes.txt")
    assert done.exit_code == 0, done.output
    lines = [line.split(",") for line in done.stdout.splitlines()[1:]]
    assert [line[1] for line in lines] == ["bee", "dog"]
    assert {line[2] for line in lines} <= {"ant", "bee", "cat", "dog", "abstains"}
    few = run("predict", *job)
    assert few.exit_code == 1 and "its head has 4 classes" in few.stderr
    assert "--classes" in few.stderr
