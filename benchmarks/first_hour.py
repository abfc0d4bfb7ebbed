"""From an empty environment to a certificate, a table and a plot, in the words of the README.

    python benchmarks/first_hour.py

In a temporary folder: an environment of its own, `pip install` of this project without extras, a
network of torchvision that is trained there on pictures of discs and squares, its weights and the
pictures as files, then `ancer certify` and `ancer report`. Prints seconds, packages and megabytes
of each step, and writes results/first_hour.json.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# what a user has: a model that was trained under noise, and a folder of pictures
MINE = """
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torchvision.models import resnet18

import ancer

images, labels = [], []
rng = np.random.default_rng(0)
for number in range(600):
    split = "test" if number % 6 == 5 else "train"
    label = number % 2
    folder = Path("data/shapes", split, ["disc", "square"][label])
    folder.mkdir(parents=True, exist_ok=True)
    colors = [tuple(map(int, rng.integers(0, 256, 3))) for _ in range(2)]
    picture = Image.new("RGB", (32, 32), colors[0])
    x, y, r = (int(v) for v in rng.integers([9, 9, 5], [23, 23, 9]))
    draw = ImageDraw.Draw(picture)
    (draw.rectangle if label else draw.ellipse)([x - r, y - r, x + r, y + r], fill=colors[1])
    picture.save(folder / f"{number}.png")
    if split == "train":
        images.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)
        labels.append(label)

torch.manual_seed(0)
model = resnet18(num_classes=2)
recipe = ancer.Recipe(epochs=15, batch_size=50, lr=0.002)
ancer.train(model, torch.stack(images), torch.tensor(labels), ancer.GaussianNoise(0.1), recipe)
save_file(model.state_dict(), "weights.safetensors")
"""
CERTIFY = (
    "certify --arch torchvision:resnet18 --weights weights.safetensors --data data/shapes "
    "--sigma 0.1 --n 1000 --images 20 --out run"
)


def timed(what: str, command: list[str], folder: Path, steps: dict[str, float]) -> str:
    """Run a command, print how long it took and the end of what it said."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stdout}\n{done.stderr}")
    steps[what] = round(time.perf_counter() - start, 1)
    print(f"{what}: {steps[what]} s", flush=True)
    return done.stdout


def main() -> None:
    steps: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        programs = folder / "env/bin"
        timed("environment", [sys.executable, "-m", "venv", "env"], folder, steps)
        timed("pip install", [str(programs / "pip"), "install", "-q", str(ROOT)], folder, steps)
        listed = timed("packages", [str(programs / "pip"), "list", "--format=json"], folder, steps)
        size = sum(f.stat().st_size for f in (folder / "env").rglob("*") if not f.is_symlink())
        (folder / "mine.py").write_text(MINE)
        timed("own model", [str(programs / "python"), "mine.py"], folder, steps)
        print(timed("certify", [str(programs / "ancer"), *CERTIFY.split()], folder, steps))
        timed("report", [str(programs / "ancer"), "report", "run"], folder, steps)
        files = sorted(path.name for path in (folder / "run").iterdir())
    found = {
        "seconds": steps,
        "packages": len(json.loads(listed)),
        "megabytes": round(size / 1e6),
        "files of the run": files,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    print(json.dumps(found, indent=1))
    (ROOT / "benchmarks/results/first_hour.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
