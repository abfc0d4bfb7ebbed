"""Tasks run in this process or on a Dask cluster: each once, few ahead, through killed workers;
bad clusters are named."""

import dataclasses
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import dask
import distributed
import psutil
import pytest
import torch
from torch import nn

from ancer.datasets.loading import load
from ancer.evaluation.arithmetic import machine
from ancer.models import checkpoints, networks
from ancer.workspace import tasks
from ancer.workspace.cluster import PROCESS, workers

pytest.importorskip("distributed")  # also brings its settings
PAUSE = 0.05
DIGIT = load("digits", images=1)


def square(k):
    time.sleep(PAUSE)
    return k, k * k, os.getpid()


def surroundings():
    environment = {name: os.environ.get(name) for name in (*PROCESS, "OMP_NUM_THREADS")}
    return environment, torch.get_num_threads()


def fail(k):
    raise ValueError(f"image {k} is broken")


def die(flag):
    """Kill the worker that runs this, the first time."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)


def no_scheduler_for_long():
    return dask.config.set({"distributed.comm.timeouts.connect": "1s"})


@pytest.fixture
def small(tmp_path):
    """A checkpoint of ancer and its `Network`."""
    torch.manual_seed(0)
    path = tmp_path / "c.safetensors"
    network = networks.build("digits_cnn", 10)
    checkpoints.save(path, network, arch="digits_cnn", classes=10, provenance={})
    return tasks.Network.of(path, "digits_cnn", DIGIT, {"batch_size": 10})


def test_this_process_runs_tasks_one_by_one_and_in_order():
    asked = []

    def numbers():
        for k in range(3):
            asked.append(k)
            yield (k,)

    with workers({}) as run:
        results = run(square, numbers())
        assert next(results) == (0, 0, os.getpid()) and asked == [0]
        assert [r[0] for r in results] == [1, 2]


@pytest.mark.slow
def test_local_cluster_runs_each_task_once_with_few_ahead(capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # Dask sets it where nobody has
    asked = []
    done = []

    def numbers():
        for k in range(40):
            asked.append(k)
            yield (k,)

    with workers({"local": 2}) as run:
        for k, squared, pid in run(square, numbers()):
            assert squared == k * k
            done.append((k, pid))
            assert len(asked) - len(done) <= 2 * 2
        ((environment, threads),) = run(surroundings, [()])
        assert list(run(square, [])) == []
        with pytest.raises(ValueError, match="image 7 is broken"):
            list(run(fail, [(7,)]))
    assert sorted(k for k, _ in done) == list(range(40))
    pids = {pid for _, pid in done}
    assert len(pids) == 2 and os.getpid() not in pids
    assert environment == {**PROCESS, "OMP_NUM_THREADS": "1"} and threads == 1
    assert f"Dask's dashboard: {run.dashboard}\n" in capsys.readouterr().out
    assert run.dashboard.startswith("http")


@pytest.mark.slow
def test_a_local_cluster_listens_to_nobody_else():
    """Not to other machines, and not without its own certificates."""
    with workers({"local": 1}) as run:
        list(run(square, [(1,)]))
        ours = psutil.Process()
        for process in [ours, *ours.children(recursive=True)]:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1", connection
        address = run._client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises((OSError, TypeError)):  # without the certificates of this cluster
            distributed.Client(address, timeout="5s")


@pytest.mark.slow
def test_task_of_a_killed_worker_runs_on_another(tmp_path):
    with workers({"local": 2}) as run:
        todo = [(str(tmp_path / f"flag{k}"),) for k in range(3)]
        assert len(list(run(die, todo))) == 3


@pytest.fixture
def importable(monkeypatch):
    """The functions of this file, for processes that are started as a user starts them."""
    folder = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture
def scheduler(importable):
    """A scheduler as a user starts one, its address and its process."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--dashboard-address", ":0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = next(line for line in process.stderr if "Scheduler at:" in line).split()[-1]
    yield address, process
    process.kill()
    process.communicate()


@contextmanager
def a_worker(address, threads):
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
    command += ["--nthreads", threads]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_scheduler_that_dies_ends_the_run_with_an_error(scheduler):
    address, process = scheduler
    with a_worker(address, "1"), no_scheduler_for_long(), workers({"address": address}) as run:
        results = run(square, ((k,) for k in range(1000)))
        assert next(results)[1] is not None
        process.kill()
        with pytest.raises(RuntimeError, match=r"scheduler was lost: .* what is finished is kept"):
            list(results)


@pytest.mark.slow
def test_worker_of_several_threads_is_refused(scheduler, small):
    """torch's switches for exact arithmetic are a process's: two tasks would undo each other's."""
    with a_worker(scheduler[0], "2"), workers({"address": scheduler[0]}) as run:
        with pytest.raises(RuntimeError, match="runs 2 tasks at once"):
            list(run(tasks.describe, [(small,)]))


@pytest.mark.slow
def test_slurm_jobs_become_workers(tmp_path, monkeypatch, importable):
    """`sbatch` here is a script that starts the job at once, as a queue would later."""
    submit = f'cp "$1" {tmp_path}/job.sh; bash {tmp_path}/job.sh >{tmp_path}/log 2>&1 & '
    submit += 'echo "Submitted batch $!"'
    for name, text in {"sbatch": submit, "scancel": 'kill "$1"'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)  # logs of jobs
    cluster = {
        "jobqueue": "slurm",
        "jobs": 1,
        "cores": 1,
        "memory": "1GB",
        "queue": "gpu",
        "walltime": "01:00:00",
        "job_extra_directives": ["--gres=gpu:1"],
        "interface": "lo",
    }
    with workers(cluster) as run:
        assert [r[1] for r in run(square, [(3,)])] == [9]
    job = (tmp_path / "job.sh").read_text()
    assert "#SBATCH -p gpu" in job and "#SBATCH --gres=gpu:1" in job and "--nthreads 1" in job


@pytest.mark.parametrize(
    "cluster, message",
    [
        (
            {"lokal": 2},
            r"cluster must be \{\} or have one of local, jobqueue, address, found \{'lokal': 2\}",
        ),
        ({"local": 2, "address": "x"}, "cluster must be"),
        ({"local": 0}, "local must be a whole number of at least 1, found 0"),
        ({"local": True}, "local must be a whole number of at least 1, found True"),
        ({"local": 2, "threads": 3}, "local goes with no other setting, found local, threads"),
        ({"jobqueue": "slurm", "cores": 1}, "jobs must be a whole number of at least 1, found Non"),
        ({"jobqueue": "slurmy", "jobs": 1}, "jobqueue must be one of .*slurm.*, found 'slurmy'"),
    ],
)
def test_bad_clusters_are_named(cluster, message):
    with pytest.raises(ValueError, match=message), workers(cluster):
        pass


def test_no_scheduler_at_the_address_is_an_error():
    where = "tcp://127.0.0.1:9"
    message = f"no Dask scheduler answers at {where}"
    with no_scheduler_for_long(), pytest.raises(OSError, match=message):
        with workers({"address": where}):
            pass


def test_without_the_extra_the_fix_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = r"cluster: \{'local': 1\} needs Dask: pip install 'ancer\[dask\]', "
    message += r"or write cluster: \{\}"
    with pytest.raises(ImportError, match=message), workers({"local": 1}):
        pass


def test_call_gives_the_function_the_network_loaded_once(small):
    expected = tasks.describe(small)
    first, seconds = tasks.call(small, expected, lambda classifier, k: (classifier, k), 5)
    again, _ = tasks.call(small, expected, lambda classifier: classifier)
    assert first == (again, 5) and seconds > 0
    assert again.batch_size == 10 and isinstance(again.module, nn.Module)
    assert expected["evaluation"]["batch_size"] == 10
    assert expected["machine"] == machine(torch.device("cpu"))


@pytest.mark.parametrize(
    "name, device", [(0, "cuda:0"), (3, "cuda:1"), ("SLURMCluster-3", "cuda:0")]
)
def test_each_worker_of_a_local_cluster_takes_a_gpu_in_turn(monkeypatch, name, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(tasks, "_worker", lambda: SimpleNamespace(name=name))
    assert str(tasks._device()) == device


def test_other_code_file_or_machine_is_refused(small, tmp_path):
    message = "this process has other code of ancer: install the same revision"
    with pytest.raises(RuntimeError, match=message):
        tasks.describe(dataclasses.replace(small, code="0" * 64))
    with pytest.raises(ValueError, match="is not the one that was expected"):
        tasks.describe(dataclasses.replace(small, sha256="0" * 64))
    expected = tasks.describe(small)
    expected["machine"] = {**expected["machine"], "device": "another GPU"}
    message = r"this process has device .*, the first one 'another GPU': use workers of"
    with pytest.raises(RuntimeError, match=message):
        tasks.call(small, expected, lambda classifier: None)
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*: run the train stage"):
        tasks.Network.of(tmp_path / "none.safetensors", "digits_cnn", DIGIT, {})


def test_a_network_of_another_architecture_is_refused(small):
    """A file may not name code of its own: the architecture is that of params.yaml."""
    with pytest.raises(ValueError, match="its architecture is 'digits_cnn', expected 'mlp'"):
        tasks.Network.of(Path(small.path), "mlp", DIGIT, {})
    with pytest.raises(ValueError, match="its architecture is 'digits_cnn', expected 'mlp'"):
        tasks.describe(dataclasses.replace(small, arch="mlp"))
