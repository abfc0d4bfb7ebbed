"""A profile and its experiments as the stages see them: parameters, paths, and what is there."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from ancer._files import sha256_of
from ancer.bases.lattice import arithmetic, step_in
from ancer.classifier import Classifier
from ancer.datasets.dataset import Dataset
from ancer.evaluation.arithmetic import device
from ancer.models import checkpoints
from ancer.noise.law import Noise
from ancer.registry import closest
from ancer.workspace.fingerprints import visible
from ancer.workspace.notebooks import check_injected
from ancer.workspace.parameters.reading import profile_folder, read_parameters
from ancer.workspace.places import FILES, MADE_FROM, output_folder
from ancer.workspace.store.columns import check_images, check_numbers
from ancer.workspace.store.provenance import compare, digests_of, read_provenance, write_provenance
from ancer.workspace.store.rows import read_rows
from ancer.workspace.store.theta import read_theta, theta_provenance
from ancer.workspace.subject import Settings, Subject


@dataclass(frozen=True, eq=False)
class Profile(Settings):
    """A folder with params.yaml, its experiments and results."""

    @classmethod
    def open(
        cls,
        profile: str | Path | None = None,
        *,
        stage: str | None = None,
        experiment: str | None = None,
        output: str | None = "results",
        **overrides: Any,
    ) -> "Profile":
        """The profile in a folder, or the nearest one at or above the working directory.

        stage: whose parameters are to be seen (see `fingerprints`), of one experiment where it is
        named; all by default. output: where it writes, see `places.output_folder`. overrides:
        values of `reading.OVERRIDES` in place of the file's; None overrides nothing.

        Raises FileNotFoundError, KeyError or ValueError naming what is wrong.
        """
        check_injected()
        folder = profile_folder(profile)
        given = {name: value for name, value in overrides.items() if value is not None}
        parameters = read_parameters(folder, given, experiment)
        if experiment is not None and experiment not in parameters.experiments:
            raise KeyError(
                f"unknown experiment {experiment!r}: {closest(experiment, parameters.experiments)}"
            )
        written = folder / output_folder(output, given)
        return cls(folder, written, visible(parameters, stage, experiment))

    @cached_property
    def experiments(self) -> dict[str, "Experiment"]:
        """All experiments that the stage sees, by name."""
        return {name: Experiment(self, name) for name in self.parameters.experiments}

    def record(self, kind: str) -> None:
        """Write beside finished results what they were made from; kind: a key of MADE_FROM."""
        path = self.target(kind) if kind in FILES else self.results(kind)
        write_provenance(path, self._sources(kind))

    def verify(self, kind: str) -> Path:
        """Where results are; ValueError where they are not of what there is now."""
        path = self.file(kind) if kind in FILES else self.results(kind)
        read_provenance(path, self._sources(kind), kind)
        return path

    def _sources(self, kind: str) -> dict[str, Any]:
        return digests_of(MADE_FROM[kind], self.file, self.parameters.experiments)

    def caveats(self) -> str:
        """Sentences on all radii: which are certain, not floating-point sound, or stopped early."""
        unsound = []
        certain = []
        for name, experiment in self.experiments.items():
            if experiment.provenance["arithmetic"] == arithmetic(None):
                unsound.append(name)
            if experiment.kind.deterministic:
                certain.append(name)
        said = []
        if certain:
            said.append(f"Without chance, alpha = 0, all draws counted: {', '.join(certain)}.")
        if unsound:
            said.append(f"{arithmetic(None).capitalize()} (see `certify`): {', '.join(unsound)}.")
        stop = self.parameters.certify.stop
        if stop is not None:
            said.append(
                f"Drawing stopped early ({stop}): radii and means of them are lower bounds."
            )
        return " ".join(said)

    def volumes(self) -> pd.DataFrame:
        """Regions compared, where they are of the certificates that there are."""
        return pd.read_csv(self.verify("volumes"))


@dataclass(frozen=True, eq=False)
class Experiment(Subject):
    """One network on one data set under one noise, and what the stages leave of it."""

    profile: Profile

    @classmethod
    def open(
        cls,
        name: str,
        *,
        stage: str | None = None,
        profile: str | Path | None = None,
        **overrides: Any,
    ) -> "Experiment":
        """The experiment of this name; see `Profile.open`."""
        opened = Profile.open(profile, stage=stage, experiment=name, **overrides)
        return opened.experiments[name]

    def file(self, kind: str) -> Path:
        """Where a result of an earlier stage is."""
        return self.profile.file(kind, self.name)

    def target(self, kind: str) -> Path:
        """Where this stage writes it."""
        return self.profile.target(kind, self.name)

    def network(self) -> nn.Module:
        """Its network, from the checkpoint."""
        return checkpoints.load(
            self.file("checkpoint"), arch=self.section.arch, classes=len(self.data.classes)
        )

    def evaluated(self, network: nn.Module) -> Classifier:
        """A network as the profile evaluates it, on this machine's device."""
        return Classifier(network.to(device()), **self.parameters.evaluate.model_dump())

    @cached_property
    def classifier(self) -> Classifier:
        """Its network as it is evaluated."""
        return self.evaluated(self.network())

    @cached_property
    def theta_provenance(self) -> dict[str, Any]:
        """What its theta was chosen for: ValueError unless that is the network that there is."""
        path = self.file("theta")
        record = theta_provenance(path)
        now = {"checkpoint": self.sha256("checkpoint"), "noise": self.noise}
        compare(path, record, now, "optimize")
        return record

    def sha256(self, kind: str) -> str:
        """sha256 of a result of an earlier stage."""
        return sha256_of(self.file(kind))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What its certificates were made from: as params.yaml, network and theta are now.

        Raises FileNotFoundError or ValueError that say which notebook to run.
        """
        now: dict[str, Any] = {"noise": self.noise, "classes": self.classes}
        for name in ("n0", "n", "alpha", "stop", "looks", "shared", "seeds"):
            now[name] = getattr(self.parameters.certify, name)
        for kind in ("checkpoint", "theta"):
            if self.file(kind).is_file():  # tables need neither
                now[kind] = self.sha256(kind)
        return read_provenance(self.file("rows"), now, "certify")

    @property
    def fallback(self) -> int:
        """The class that pure noise gets, as the certify stage measured it."""
        return self.provenance["fallback"]["class"]

    def rows(self, data: Dataset | None = None) -> pd.DataFrame:
        """Its certificates of the first seed; see `all_rows`."""
        rows = self.all_rows(data)
        return rows[rows["seed"] == self.provenance["seed"]].reset_index(drop=True)

    def all_rows(self, data: Dataset | None = None) -> pd.DataFrame:
        """Its certificates of all seeds, where all that they were made from is as it was.

        data: images that they must be of. Gap and radius are computed again from the votes. Raises
        FileNotFoundError or ValueError that say which notebook to run.
        """
        path = self.file("rows")
        provenance = self.provenance  # compared before the rows are read
        rows = read_rows(path)
        check_numbers(rows, self.kind, provenance, path)
        if data is not None:
            check_images(rows, data.digest_of, path)
        return rows

    def answers(self) -> pd.DataFrame:
        """Its answers through a memory, where they are of the certificates that there are."""
        path = self.file("answers")
        read_provenance(path, {"rows": self.sha256("rows")}, "memory")
        return pd.read_csv(path)

    def theta(self, data: Dataset, lattice: float | None = None) -> dict[str, Tensor]:
        """theta of each method round some of its images, as it is sampled: see `noises`."""
        found = {}
        for name, noise in self.noises(data).items():
            found[name] = noise.theta_for(data.images, step_in(noise.basis, lattice))
        return found

    def noises(self, data: Dataset) -> dict[str, Noise]:
        """The noise of each method round some of its images.

        Its theta is what a function chose, from the optimize stage; elsewhere that of the training
        noise. A method that does not run on all of them is left out.
        """
        _ = self.theta_provenance
        wanted = set(data.indices)
        needed = {*self.certified_methods, *self.chosen_methods}
        for method in self.certified_methods.values():
            needed |= set(method.best_of or ())
        runs = []
        for name in self.methods:
            if name in needed and wanted <= set(self.images_of(name)):
                runs.append(name)
        names = [name for name in self.chosen_methods if name in runs]
        chosen = read_theta(self.file("theta"), data.digest_of, names)
        found = {}
        for name in runs:
            if self.methods[name].best_of is None:
                theta = chosen.get(name, self.law.theta.expand(len(data)))
                found[name] = self.law.in_basis(self.basis(name)).with_theta(theta)
        return found
