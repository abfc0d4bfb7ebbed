"""The papermill engine of the pipeline: executed notebooks that are the same each time."""

import os
from pathlib import Path

from papermill.engines import NBClientEngine
from traitlets.config import Config

from ancer.workspace.cluster import PROCESS
from ancer.workspace.notebooks import repeatable
from ancer.workspace.places import RUNNING


class Engine(NBClientEngine):
    """papermill's engine, made repeatable: `papermill --engine ancer`.

    What it runs writes among the profile's results, not where a notebook that is run by hand does.
    Makes the output folder, and leaves no time, random id or version in the executed notebook; what
    a cell prints is one output, in however many pieces a busy machine sent it. Where there are
    sockets in files, the kernel is spoken to over these: over TCP others on the machine can listen.
    """

    @classmethod
    def execute_notebook(cls, nb, kernel_name, output_path=None, **kwargs):
        for name, value in PROCESS.items():
            os.environ.setdefault(name, value)
        if output_path is not None:
            Path(output_path).parent.mkdir(parents=True, exist_ok=True)
        kwargs.setdefault("coalesce_streams", True)
        if os.name == "posix":
            kwargs.setdefault("config", Config({"KernelManager": {"transport": "ipc"}}))
        os.environ[RUNNING] = "results"
        try:
            executed = super().execute_notebook(nb, kernel_name, output_path=output_path, **kwargs)
        finally:
            del os.environ[RUNNING]
        return repeatable(executed)
