"""The memory stage: answers that never contradict each other."""

from collections.abc import Iterator

import pandas as pd

from ancer._files import sha256_of, write_text
from ancer.bases.lattice import step_in
from ancer.certificates.certificate import Certificate
from ancer.classifier import Evaluation
from ancer.regions.answer import Answer
from ancer.regions.memory import Memory
from ancer.workspace.experiment import Experiment
from ancer.workspace.store.columns import answer_row, votes_of
from ancer.workspace.store.provenance import write_provenance


def answer_queries(experiment: Experiment) -> pd.DataFrame:
    """The answers to all certified images, in dataset order, written to results/memory.

    One memory for each method whose theta depends on the image: one classifier, one norm.
    """
    lines = []
    for name in answered_methods(experiment):
        for answer, certificate, label in answers_of(experiment, name):
            lines.append(answer_row(answer, certificate, method=name, label=label))
    answers = pd.DataFrame(lines)
    path = experiment.target("answers")
    write_text(path, answers.to_csv(index=False))
    write_provenance(path, {"rows": sha256_of(experiment.file("rows"))})
    return answers


def answers_of(experiment: Experiment, method: str) -> Iterator[tuple[Answer, Certificate, int]]:
    """What a memory answers to a method's certificates in dataset order; and the labels."""
    with memory_of(experiment, method) as memory:
        for certificate, label in certificates(experiment, method):
            yield memory.answer(certificate), certificate, label


def memory_of(experiment: Experiment, method: str) -> Memory:
    """An empty one for a method's certificates."""
    return Memory(
        norm=experiment.norm,
        basis=experiment.basis(method),
        largest=experiment.parameters.memory.largest.get(experiment.section.noise),
    )


def answered_methods(experiment: Experiment) -> list[str]:
    """The methods whose certificates are answered through a memory."""
    chosen = experiment.parameters.memory.methods
    if chosen is not None:
        return chosen
    methods = experiment.certified_methods.items()
    return [name for name, method in methods if method.depends_on_image]


def certificates(experiment: Experiment, method: str) -> list[tuple[Certificate, int]]:
    """The certificates of a method as they were made, and the labels, in dataset order."""
    rows = experiment.rows(experiment.data)
    evaluation = Evaluation(**experiment.provenance["evaluation"])
    of_method = rows[rows["method"] == method]
    data = experiment.data.take(of_method["idx"].tolist())
    basis = experiment.basis(method)
    theta = experiment.theta(data, experiment.lattice)
    found = []
    for k, line in enumerate(of_method.itertuples()):
        certificate = Certificate(
            index=line.idx,
            chosen=line.chosen,
            prediction=line.prediction,
            p_a_lower=line.p_a_lower,
            p_b_upper=line.p_b_upper,
            gap=line.gap,
            center=data.images[k],
            theta=theta[line.candidate][k],
            norm=experiment.norm,
            votes=votes_of(line.votes),
            n=line.n,
            alpha=line.alpha,
            lattice=step_in(basis, experiment.lattice),
            evaluation=evaluation,
            basis=basis,
        )
        found.append((certificate, int(line.label)))
    return found
