"""Nothing finished is lost: runs killed at random moments, full and read-only disks, lost
schedulers.

`ANCER_KILLS=50 pytest tests/workspace/test_kills.py -k random` kills so often, and prints how often
each target was killed, and how many rows were lost, doubled or differ from those of a run without a
break.
"""

import itertools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter

import pandas as pd
import psutil
import pytest
import torch
from stages import ROOT, compute, parameters, write_parameters

from ancer.workspace.store.theta import read_theta

NAME = "digits-l2-025"
ROWS = f"results/rows/{NAME}.csv"
THETA = f"data/theta/{NAME}.safetensors"
EARLY = "too early"
KILLS = int(os.environ.get("ANCER_KILLS", 3))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A profile with a trained network, theta and rows.

    One thread of one process made them without a break.
    """
    folder = tmp_path_factory.mktemp("trained")
    p = parameters()
    p["images"] = 12
    p["certify"]["n"] = 1000
    p["every"] = 7
    for recipe in p["train"].values():
        recipe["epochs"] = 8
    p["methods"]["anisotropic"]["iterations"] = 10
    for slow in ("isotropic-paper", "anisotropic-paper"):
        del p["methods"][slow]
    p["tasks"] = {"optimize": 2, "certify": 1}
    p["experiments"] = {NAME: p["experiments"][NAME]}
    write_parameters(folder, p)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Dask's workers have; sums differ with other numbers of threads
    for stage in ("train", "optimize", "certify", "memory"):
        compute(folder, stage, experiment=NAME)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def profile(trained, tmp_path):
    """A copy of it without what optimize and certify made, for two workers."""
    folder = tmp_path / "profile"
    made = shutil.ignore_patterns("results", "theta", "executed")
    shutil.copytree(trained, folder, ignore=made)
    parts = shutil.ignore_patterns("*.parts")
    shutil.copytree(trained / "data/theta", folder / "data/theta", ignore=parts)
    use(folder, {"local": 2})
    return folder


def use(folder, cluster):
    write_parameters(folder, {**parameters(folder), "cluster": cluster})


def start(folder, stage="certify"):
    """The stage as DVC starts it, in a process group of its own."""
    command = [sys.executable, "-m", "papermill", "--engine", "ancer", "--no-progress-bar"]
    command += [str(ROOT / f"notebooks/{stage}.ipynb"), str(folder / "out.ipynb")]
    command += ["-p", "experiment", NAME]
    log = open(folder / "log", "w")
    return subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=log, stderr=log)


def ended(process, folder):
    """What a run that is over said; its exit status."""
    process.wait(timeout=300)
    return process.returncode, re.sub(r"\x1b\[[0-9;]*m", "", (folder / "log").read_text())


def count_of(folder):
    """Rows of a finished run: images x methods."""
    return len(pd.read_csv(folder / ROWS))


def lines(folder):
    """Finished lines of the row store, whole or torn."""
    stores = (folder / "results/rows").glob("*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in stores)


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
    """Also the answers through the memory, given one after the other in dataset order."""
    shutil.rmtree(profile / "data/theta")
    for stage in ("optimize", "certify"):
        process = start(profile, stage)
        assert ended(process, profile)[0] == 0, (profile / "log").read_text()
    compute(profile, "memory", experiment=NAME)
    for path in (ROWS, f"results/rows/{NAME}.json", THETA):
        assert same(profile, trained, path), path
    assert same(profile, trained, f"results/memory/{NAME}.csv")


def test_rows_survive_kills_at_random_moments(trained, profile, capsys):
    """All processes, papermill, the kernel or a worker die at any moment of a run."""
    chance = random.Random(0)
    kills = Counter()
    targets = itertools.cycle(["all", "kernel", "worker", "papermill"])
    whole = (trained / ROWS).read_bytes()
    expected = count_of(trained)
    missing = 0
    doubled = 0
    differing = 0
    runs = 0
    while kills.total() - kills[EARLY] < KILLS:
        process = start(profile)
        target = next(targets)
        # between what is there and the last row, and a moment later
        few = chance.randint(lines(profile), expected)
        wait_for(lambda few=few: lines(profile) >= few, process)
        time.sleep(chance.uniform(0, 1))
        if process.poll() is None:
            kills[target if killed(process, target, chance) else EARLY] += 1
        process.wait(timeout=300)
        if not (profile / ROWS).exists():
            continue  # the next run goes on
        runs += 1
        (partial,) = (profile / "results/rows").glob("*.jsonl")
        # each after its checksum
        rows = [json.loads(line.partition(" ")[2]) for line in partial.read_text().splitlines()]
        count = Counter((row["method"], row["idx"]) for row in rows)
        missing += expected - len(count)
        doubled += sum(n - 1 for n in count.values())
        finished = (profile / ROWS).read_bytes()
        pairs = zip(finished.splitlines(), whole.splitlines(), strict=False)
        differing += sum(a != b for a, b in pairs)
        shutil.rmtree(profile / "results")
    with capsys.disabled():
        print(f"\n{dict(kills)}, {runs} runs of {expected} rows: ", end="")
        print(f"{missing} lost, {doubled} doubled, {differing} differ")
    assert (missing, doubled, differing) == (0, 0, 0)


def killed(process, target, chance):
    """Kill the target of a run; False where it has not started yet."""
    if target == "all":
        kill_all(process)
        return True
    if target == "papermill":
        process.kill()
        return True
    found = descendants(process, {"kernel": "ipykernel", "worker": "multiprocessing"}[target])
    if found:
        chance.choice(found).kill()
    return bool(found)


def test_theta_survives_a_kill(trained, profile):
    shutil.rmtree(profile / "data/theta")
    process = start(profile, "optimize")

    def finished():
        return list((profile / "data/theta").glob("*.parts/*.safetensors"))

    wait_for(lambda: len(finished()) >= 2, process)
    kill_all(process)
    parts = {path: path.stat().st_mtime_ns for path in finished()}
    assert len(parts) >= 2 and not (profile / THETA).exists()
    assert ended(start(profile, "optimize"), profile)[0] == 0
    assert same(profile, trained, THETA)
    assert parts == {path: path.stat().st_mtime_ns for path in parts}  # not computed again


def test_a_finished_stage_that_is_run_again_computes_nothing(trained, tmp_path):
    """A kill after the last row, or a change that touches no row, costs no certificate."""
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    compute(again, "certify", experiment=NAME)
    for path in (ROWS, f"results/timing/{NAME}.certify.json"):
        assert same(again, trained, path)
    (lines,) = (again / "results/rows").glob("*.jsonl")
    before = trained / "results/rows" / lines.name
    assert lines.read_bytes() == before.read_bytes()  # seconds would differ


def test_a_second_run_is_refused_by_the_first_ones_process_and_host(profile):
    use(profile, {})
    first = start(profile)
    wait_for(lambda: lines(profile) > 0, first)
    kernel = descendants(first, "ipykernel")[0]
    kernel.suspend()  # it still holds the lock
    try:
        second = [*first.args[:-4], str(profile / "second.ipynb"), *first.args[-3:]]
        output = subprocess.run(second, cwd=profile, capture_output=True, text=True)
        assert output.returncode
        owner = f"process {kernel.pid} on {os.uname().nodename}"
        assert f"{NAME}.csv is being written by {owner}" in output.stderr
    finally:
        kill_all(first)


@pytest.fixture
def disk(profile):
    """A file system of 16 KiB where the rows go; a function that changes its options."""
    folder = profile / "results/rows"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "ancer-test", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")

    def change(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    yield change
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_loses_no_row(trained, profile, disk):
    status, said = ended(start(profile), profile)
    kept = lines(profile)
    assert status and 0 < kept < count_of(trained)
    full = r"cannot write .*\.jsonl \(.*No space left on device\): fix the disk and run again"
    assert re.search(full, said)
    disk("size=1m")
    assert ended(start(profile), profile)[0] == 0
    assert same(profile, trained, ROWS)


def test_disk_that_becomes_read_only_loses_no_row(trained, profile, disk, tmp_path):
    """The folder of the rows becomes a read-only copy of itself, as after an error of the disk."""
    use(profile, {})
    disk("size=1m")
    rows = profile / "results/rows"
    frozen = tmp_path / "frozen"
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
    assert status and 3 < kept < count_of(trained)
    # the file that was locked is below the other file system
    assert re.search(r"cannot write .*removed or replaced.*run again", said)
    assert lines(profile) == kept
    assert ended(start(profile), profile)[0] == 0
    assert same(profile, trained, ROWS)


def dask_cluster():
    """A scheduler and two workers, as a user starts them."""
    address = ["--host", "127.0.0.1", "--port", "18786"]
    scheduler = ["dask_scheduler", *address, "--no-dashboard"]
    worker = ["dask_worker", "tcp://127.0.0.1:18786", "--nthreads", "1", "--no-dashboard"]
    processes = []
    for module, *arguments in (scheduler, worker, worker):
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    wait_for(listens, processes[0])
    return processes


def listens():
    """Whether the scheduler takes connections yet."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", 18786)) == 0


def stop(processes):
    for process in processes:
        process.kill()
        process.wait()


def test_lost_scheduler_loses_no_row(trained, profile, monkeypatch):
    """A scheduler and workers started by hand; the scheduler dies, with others the run goes on."""
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use(profile, {"address": "tcp://127.0.0.1:18786"})
    processes = dask_cluster()
    try:
        run = start(profile)
        wait_for(lambda: lines(profile) > 3, run)
        processes[0].kill()
        status, said = ended(run, profile)
        assert status and "the Dask scheduler was lost: start it and run again" in said
        kept = lines(profile)
        assert 3 < kept < count_of(trained)
        stop(processes)
        processes = dask_cluster()
        assert ended(start(profile), profile)[0] == 0
        assert same(profile, trained, ROWS)
    finally:
        stop(processes)


def test_peak_memory_of_joining_theta_does_not_grow_with_the_images(tmp_path):
    """64 MiB of theta in parts of 1 MiB join within 24 MiB of the process's own memory."""
    path = tmp_path / "t.safetensors"
    code = f"""
import threading, torch
from pathlib import Path
from ancer.workspace.store.theta import ThetaStore, read_theta
def own():  # bytes that are no file's
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(l for l in status if l.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
chunks = [{{4 * k + i: "digest" for i in range(4)}} for k in range(64)]
with ThetaStore("{path}", key="k", counts={{"anisotropic": 256}}) as thetas:
    for c in chunks:
        theta = {{"anisotropic": torch.full((4, 65536), float(min(c)))}}
        thetas.add(c, theta, seconds={{"anisotropic": 1.0}})
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
some = {{100: "digest", 3: "digest"}}
theta = read_theta("{path}", some, ["anisotropic"])["anisotropic"]
assert theta[:, 0].tolist() == [100.0, 0.0] and own() - before < 24 << 20
"""
    command = [sys.executable, "-c", code]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(grown) < 24 << 20, grown
    last = read_theta(path, {255: "digest"}, ["anisotropic"])["anisotropic"]
    assert last.unique().tolist() == [252.0]
