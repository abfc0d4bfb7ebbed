"""Nothing finished is lost: runs killed at random moments, full and read-only disks, lost schedulers.

`ANCER_KILLS=50 pytest tests/test_kills.py -k random` kills so often, and prints how often each target was killed, and
how many rows were lost, doubled or differ from those of a run without a break.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml
from stages import run

from ancer import store

ROOT = Path(__file__).parents[1]
NAME = "digits-l2-0.25"
EARLY = "too early"
KILLS = int(os.environ.get("ANCER_KILLS", 5))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A profile with a trained network, theta and rows that one process made without a break, one thread a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as Dask's workers have; sums differ with other numbers of threads
        folder = tmp_path_factory.mktemp("trained")
        p = yaml.safe_load((ROOT / "params.yaml").read_text())
        p["images"], p["every"] = 12, 7
        p["train"] = {name: {**recipe, "epochs": 8} for name, recipe in p["train"].items()}
        p["optimize"]["iterations"] = 20
        p["tasks"] = {"optimize": 2, "certify": 1}
        p["experiments"] = {NAME: p["experiments"][NAME]}
        (folder / "params.yaml").write_text(yaml.safe_dump(p))
        for stage in ("train", "optimize", "certify", "memory"):
            run(folder, stage, experiment=NAME)
        yield folder


@pytest.fixture
def profile(trained, tmp_path):
    """A copy of it without what optimize and certify made, for two workers."""
    folder = tmp_path / "profile"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("results", "theta", "executed"))
    shutil.copytree(trained / "data/theta", folder / "data/theta", ignore=shutil.ignore_patterns("*.parts"))
    use(folder, {"local": 2})
    return folder


def use(folder, cluster):
    p = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump({**p, "cluster": cluster}))


def start(folder, stage="certify"):
    """The stage as DVC starts it, in a process group of its own."""
    command = [sys.executable, "-m", "papermill", "--engine", "ancer", "--no-progress-bar"]
    command += [str(ROOT / f"notebooks/{stage}.ipynb"), str(folder / "out.ipynb"), "-p", "experiment", NAME]
    log = open(folder / "log", "w")
    return subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=log, stderr=log)


def ended(process, folder):
    """What a run that is over said; its exit status."""
    process.wait(timeout=300)
    return process.returncode, re.sub(r"\x1b\[[0-9;]*m", "", (folder / "log").read_text())


def lines(folder):
    """Finished lines of the row store, whole or torn."""
    return sum(p.read_bytes().count(b"\n") for p in (folder / "results/rows").glob("*.jsonl"))


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def same(folder, other, path):
    return (folder / path).read_bytes() == (other / path).read_bytes()


def descendants(process, what):
    """Living processes below `process` whose command line holds `what`."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if what in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it is gone
            pass
    return found


def kill_all(process):
    """papermill, its kernel and the kernel's workers at once, as a lost machine does."""
    for victim in [*descendants(process, ""), psutil.Process(process.pid)]:
        victim.kill()
    process.wait()


def test_a_cluster_gives_the_rows_and_theta_of_one_process(trained, profile):
    """Also the answers through the memory, which are given one after the other in dataset order."""
    shutil.rmtree(profile / "data/theta")
    for stage in ("optimize", "certify", "memory"):
        process = start(profile, stage)
        assert ended(process, profile)[0] == 0, (profile / "log").read_text()
    for path in (f"results/rows/{NAME}.csv", f"results/rows/{NAME}.json", f"data/theta/{NAME}.safetensors"):
        assert same(profile, trained, path), path
    assert same(profile, trained, f"results/memory/{NAME}.csv")


def test_rows_survive_kills_at_random_moments(trained, profile, capsys):
    """All processes, papermill, the kernel or a worker die at any moment of a run, from its start to its end."""
    chance, kills, whole = random.Random(0), Counter(), (trained / f"results/rows/{NAME}.csv").read_bytes()
    started = time.monotonic()
    process = start(profile)
    process.wait()
    usual, missing, doubled, differing, runs = time.monotonic() - started, 0, 0, 0, 1
    assert (profile / f"results/rows/{NAME}.csv").read_bytes() == whole
    shutil.rmtree(profile / "results")
    while kills.total() - kills[EARLY] < KILLS:
        process, target = start(profile), chance.choice(["all", "papermill", "kernel", "worker"])
        try:
            process.wait(timeout=chance.uniform(0, usual))
        except subprocess.TimeoutExpired:
            if target == "all":
                kill_all(process)
            elif target == "papermill":
                process.kill()
            elif found := descendants(process, {"kernel": "ipykernel", "worker": "multiprocessing"}[target]):
                chance.choice(found).kill()
            else:
                target = EARLY
            kills[target] += 1
        process.wait(timeout=300)
        if not (profile / f"results/rows/{NAME}.csv").exists():
            continue  # the next run goes on
        runs += 1
        (partial,) = (profile / "results/rows").glob("*.jsonl")
        count = Counter((r["method"], r["idx"]) for r in map(json.loads, partial.read_text().splitlines()))
        missing += 48 - len(count)
        doubled += sum(n - 1 for n in count.values())
        finished = (profile / f"results/rows/{NAME}.csv").read_bytes()
        differing += sum(a != b for a, b in zip(finished.splitlines(), whole.splitlines(), strict=False))
        shutil.rmtree(profile / "results")
    with capsys.disabled():
        print(f"\n{dict(kills)}, {runs} runs of 48 rows: {missing} lost, {doubled} doubled, {differing} differ")
    assert (missing, doubled, differing) == (0, 0, 0)


def test_theta_survives_a_kill(trained, profile):
    shutil.rmtree(profile / "data/theta")
    process = start(profile, "optimize")
    wait_for(lambda: len(list((profile / "data/theta").glob("*.parts/*.safetensors"))) >= 2, process)
    kill_all(process)
    parts = {f: f.stat().st_mtime_ns for f in (profile / "data/theta").glob("*.parts/*.safetensors")}
    assert len(parts) >= 2 and not (profile / f"data/theta/{NAME}.safetensors").exists()
    assert ended(start(profile, "optimize"), profile)[0] == 0
    assert same(profile, trained, f"data/theta/{NAME}.safetensors")
    assert parts == {f: f.stat().st_mtime_ns for f in parts}  # not computed again


def test_a_finished_stage_that_is_run_again_computes_nothing(trained, tmp_path):
    """A kill after the last row, or a change that touches no row, costs no certificate."""
    shutil.copytree(trained, tmp_path / "again")
    run(tmp_path / "again", "certify", experiment=NAME)
    for path in (f"results/rows/{NAME}.csv", f"results/timing/{NAME}.certify.json"):
        assert same(tmp_path / "again", trained, path)
    (lines,) = (tmp_path / "again/results/rows").glob("*.jsonl")
    assert lines.read_bytes() == (trained / "results/rows" / lines.name).read_bytes()  # seconds would differ


def test_a_second_run_is_refused_by_the_first_ones_process_and_host(profile):
    first = start(profile)
    wait_for(lambda: lines(profile) > 0, first)
    kernel = descendants(first, "ipykernel")[0]
    kernel.suspend()  # it still holds the lock
    try:
        second = [*first.args[:-4], str(profile / "second.ipynb"), *first.args[-3:]]
        output = subprocess.run(second, cwd=profile, capture_output=True, text=True)
        assert output.returncode
        assert f"{NAME}.csv is being written by process {kernel.pid} on {os.uname().nodename}" in output.stderr
    finally:
        kill_all(first)


@pytest.fixture
def disk(profile):
    """A file system of 16 KiB where the rows go."""
    folder = profile / "results/rows"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "ancer-test", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_loses_no_row(trained, profile, disk):
    status, said = ended(start(profile), profile)
    kept = lines(profile)
    assert status and 0 < kept < 48
    assert re.search(r"cannot write .*\.jsonl \(.*No space left on device\): mend the disk and run again", said)
    disk("size=1m")
    assert ended(start(profile), profile)[0] == 0
    assert same(profile, trained, f"results/rows/{NAME}.csv")


def test_disk_that_becomes_read_only_loses_no_row(trained, profile, disk, tmp_path):
    """The folder of the rows turns into a read-only copy of itself, as after an error of the disk."""
    disk("size=1m")
    rows, frozen = profile / "results/rows", tmp_path / "frozen"
    frozen.mkdir()
    process = start(profile)
    wait_for(lambda: lines(profile) > 3, process)
    kernel = descendants(process, "ipykernel")[0]
    kernel.suspend()
    subprocess.run(["mount", "-t", "tmpfs", "ancer-test", str(frozen)], check=True)
    try:
        shutil.copytree(rows, frozen, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(frozen)], check=True)
        subprocess.run(["mount", "--bind", str(frozen), str(rows)], check=True)
        kernel.resume()
        status, said = ended(process, profile)
        kept = lines(profile)
        subprocess.run(["umount", str(rows)], check=True)
    finally:
        subprocess.run(["umount", str(frozen)], check=True)
    assert status and 3 < kept < 48 and re.search(r"cannot write .*Read-only file system.*run again", said)
    assert lines(profile) == kept
    assert ended(start(profile), profile)[0] == 0
    assert same(profile, trained, f"results/rows/{NAME}.csv")


def test_lost_scheduler_loses_no_row(trained, profile, monkeypatch):
    """A scheduler and workers started by hand; the scheduler dies, and with others the run goes on."""
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use(profile, {"address": "tcp://127.0.0.1:18786"})

    def cluster():
        scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", "18786", "--no-dashboard"]
        worker = ["dask_worker", "tcp://127.0.0.1:18786", "--nthreads", "1", "--no-dashboard"]
        commands = [[sys.executable, "-m", f"distributed.cli.{c[0]}", *c[1:]] for c in (scheduler, worker, worker)]
        return [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]

    processes = cluster()
    try:
        run = start(profile)
        wait_for(lambda: lines(profile) > 3, run)
        processes[0].kill()
        status, said = ended(run, profile)
        assert status and "the Dask scheduler was lost: start it and run again" in said
        kept = lines(profile)
        assert 3 < kept < 48
        for process in processes:
            process.kill()
            process.wait()
        processes = cluster()
        assert ended(start(profile), profile)[0] == 0
        assert same(profile, trained, f"results/rows/{NAME}.csv")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_peak_memory_of_joining_theta_does_not_grow_with_the_images(tmp_path):
    """64 MiB of theta in parts of 1 MiB join within 24 MiB of the process's own memory."""
    code = f"""
import threading, torch
from pathlib import Path
from ancer import store
def own():  # bytes that are no file's
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
chunks = [[4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3] for k in range(64)]
with store.ThetaStore("{tmp_path}/t.safetensors", key="k") as thetas:
    for c in chunks:
        thetas.add(c, {{"anisotropic": torch.full((4, 65536), float(c[0]))}}, seconds={{"anisotropic": 1.0}})
    before, peak, done = own(), 0, False
    def watch():
        global peak
        while not done:
            peak = max(peak, own())
    thread = threading.Thread(target=watch)
    thread.start()
    thetas.finish(chunks, provenance={{}})
    done = True
    thread.join()
    print(max(peak, own()) - before)
theta = store.read_theta("{tmp_path}/t.safetensors", [100, 3])["anisotropic"]
assert theta[:, 0].tolist() == [100.0, 0.0] and own() - before < 24 << 20
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 24 << 20, grown
    assert store.read_theta(tmp_path / "t.safetensors", [255])["anisotropic"].unique().tolist() == [252.0]
