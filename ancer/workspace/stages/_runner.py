"""Tasks of a stage, run by this process or by workers, with a line of progress."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ancer.workspace.cluster import Run, workers
from ancer.workspace.experiment import Experiment
from ancer.workspace.notebooks import progress
from ancer.workspace.tasks import Network, call, describe


@dataclass(frozen=True)
class Runner:
    """Runs functions of an experiment's network and of a task's arguments.

    setting: how the first worker evaluates the network, and its machine; all others must agree.
    """

    network: Network
    setting: dict[str, dict]
    run: Run

    def __call__(
        self,
        function: Callable,
        tasks: Iterable[tuple],
        *,
        what: str,
        total: int,
        images: Callable[[Any], int],
    ) -> Iterator[tuple[Any, float]]:
        """(function(classifier, *task), seconds) for each task, in any order.

        what: is done to `total` images in all; images: how many of them a result is.
        """
        todo = ((self.network, self.setting, function, *task) for task in tasks)
        finished = self.run(call, todo)
        yield from progress(finished, what, total, lambda done: images(done[0]), self.run.dashboard)


@contextmanager
def runner(experiment: Experiment) -> Iterator[Runner]:
    """The workers that `cluster` in params.yaml names, with the experiment's network."""
    network = Network.of(
        experiment.file("checkpoint"),
        experiment.section.arch,
        experiment.data,
        experiment.parameters.evaluate.model_dump(),
    )
    with workers(experiment.parameters.cluster) as run:
        (setting,) = run(describe, [(network,)])
        yield Runner(network, setting, run)
