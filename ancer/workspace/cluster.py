"""Where tasks run: this process, or the workers of a Dask cluster."""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

# How the processes of kernels and workers run on Linux. glibc gives every large tensor back to the
# system and takes it again, page by page: kept instead, the digits' float32 forward pass is three
# times as fast. Threads that spin while they wait cost ten times the work on a busy machine,
# threads that sleep at once a third of the speed on a quiet one: spin shortly.
PROCESS = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "GOMP_SPINCOUNT": "2000",
}
# Dask looks at itself 50 to 100 times a second, which takes a twentieth of each core that computes:
# less often here.
WATCHING = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "1s",
}
HERE = "127.0.0.1"
COUNTED = {"local": "local", "jobqueue": "jobs", "address": None}  # kind: what says how many
LOST = "the Dask scheduler was lost: start it and run again, what is finished is kept"


class Run:
    """`run(function, tasks)` yields function(*task) for each task, as they finish, in any order.

    dashboard: the address of Dask's, empty in this process.
    """

    def __init__(self, client: Any = None):
        self._client = client
        self.dashboard = client.dashboard_link if client else ""

    def __call__(self, function: Callable, tasks: Iterable[tuple]) -> Iterator:
        if self._client is None:
            return (function(*task) for task in tasks)
        return _results(self._client, function, iter(tasks))


@contextmanager
def workers(cluster: dict) -> Iterator[Run]:
    """How to run tasks, by the section `cluster` of params.yaml:

    - {}: in this process, one after the other;
    - {local: 4}: so many processes of this machine, one thread each, and with GPUs one GPU each in
      turn;
    - {address: "tcp://host:8786"}: the workers of a Dask scheduler that runs already;
    - {jobqueue: slurm, jobs: 8, ...}: so many jobs of a queue that dask-jobqueue knows, the rest
      being its options (cores, memory, queue, walltime, job_extra_directives, ...).

    A worker that dies is replaced where the cluster can do so, and its task runs on another; a task
    that took four workers with it ends the run. Only a few tasks more than there are workers are
    sent ahead, so memory does not grow with their number.

    Raises ValueError for another section, ImportError without the extra `dask`, OSError where no
    scheduler answers, RuntimeError when it is lost.
    """
    kind = check_cluster(cluster)
    if kind is None:
        yield Run()
        return
    try:
        import dask
        import distributed
    except ImportError:
        raise ImportError(
            f"cluster: {cluster} needs Dask: pip install 'ancer[dask]', or write cluster: {{}}"
        ) from None
    process = {f"distributed.nanny.pre-spawn-environ.{k}": value for k, value in PROCESS.items()}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({**WATCHING, **process}))
        where = cluster.get("address")
        if where is None:
            where = stack.enter_context(_cluster(kind, cluster))
        try:
            client = stack.enter_context(distributed.Client(where))
        except OSError:
            raise OSError(
                f"no Dask scheduler answers at {where}: start it (dask scheduler), or fix cluster"
            ) from None
        print(f"Dask's dashboard: {client.dashboard_link}", flush=True)
        yield Run(client)


def check_cluster(cluster: dict) -> str | None:
    """The kind of cluster, None for this process; ValueError for what is none of `workers`'."""
    if not cluster:
        return None
    kinds = [kind for kind in COUNTED if kind in cluster]
    if len(kinds) != 1:
        raise ValueError(
            f"cluster must be {{}} or have one of {', '.join(COUNTED)}, found {cluster}"
        )
    kind = kinds[0]
    count = COUNTED[kind]
    if count is not None:
        found = cluster.get(count)
        if type(found) is not int or found < 1:
            raise ValueError(
                f"cluster: {count} must be a whole number of at least 1, found {found!r}"
            )
    if kind != "jobqueue" and len(cluster) > 1:
        raise ValueError(f"cluster: {kind} goes with no other setting, found {', '.join(cluster)}")
    return kind


def _cluster(kind: str, cluster: dict):
    import distributed

    if kind == "local":
        # for nobody else, of this machine or another: certificates of our own, and its own address
        return distributed.LocalCluster(
            n_workers=cluster["local"],
            threads_per_worker=1,
            host=HERE,
            dashboard_address=f"{HERE}:8787",
            security=distributed.Security.temporary(),
        )
    import dask_jobqueue

    queues = {}
    for name in dir(dask_jobqueue):
        if name.endswith("Cluster"):
            queues[name.removesuffix("Cluster").lower()] = getattr(dask_jobqueue, name)
    if cluster["jobqueue"] not in queues:
        raise ValueError(
            f"cluster: jobqueue must be one of {', '.join(queues)}, found {cluster['jobqueue']!r}"
        )
    options = dict(cluster)
    make = queues[options.pop("jobqueue")]
    # which the job's script does not quote
    options.setdefault("python", shlex.quote(sys.executable))
    count = options.pop("jobs")
    jobs = make(**options)
    jobs.scale(jobs=count)
    return jobs


def _results(client, function: Callable, tasks: Iterator[tuple]) -> Iterator:
    from distributed import as_completed

    running = as_completed(with_results=True)
    while True:
        # 1. send a few tasks ahead
        try:
            ahead = max(2, 2 * sum(client.nthreads().values()))
        except OSError:
            raise RuntimeError(LOST) from None
        for task in islice(tasks, max(0, ahead - running.count())):
            running.add(client.submit(function, *task, pure=False))
        if running.is_empty():
            return
        # 2. hand over the next that is finished
        future, result = next(running)
        if future.status != "finished":  # cancelled: no other failure comes this way
            raise RuntimeError(LOST)
        yield result
        del future, result  # the worker may forget it
