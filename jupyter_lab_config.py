"""How JupyterLab starts here.

`make` links this into its environment, and jupyter_lab_settings.json as
labconfig/default_setting_overrides.json (no question about news); elsewhere: jupyter lab
--config=<this file>.
"""

import glob
import os
import sys

from ancer.workspace.cluster import PROCESS

for name, value in PROCESS.items():  # kernels inherit it
    os.environ.setdefault(name, value)

c = get_config()  # noqa: F821
c.LabApp.default_url = "/lab/tree/notebooks/index.ipynb"
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"  # nothing is asked of a network
c.LabApp.news_url = None
# JupyterLab looks for extensions by patterns: in a folder named a[b] it finds none (4.6)
extensions = os.path.join(sys.prefix, "share/jupyter/labextensions")
if glob.escape(extensions) != extensions:
    c.LabApp.extra_labextensions_path = [glob.escape(extensions)]
