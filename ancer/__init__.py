"""Certified robustness by anisotropic randomized smoothing (ANCER, Eiras et al., TMLR 2022).

The public names are those of `__init__.pyi`, each imported when it is first used: a program pays
only for what it needs.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
