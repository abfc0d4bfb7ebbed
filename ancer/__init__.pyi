from .certificate import Certificate as Certificate
from .certification import certify as certify
from .certification import predict as predict
from .classifier import Classifier as Classifier
from .datasets.dataset import Dataset as Dataset
from .noise import GaussianNoise as GaussianNoise
from .noise import UniformNoise as UniformNoise
from .optimization.anisotropic import optimize_anisotropic as optimize_anisotropic
from .optimization.dataset import optimize_dataset as optimize_dataset
from .optimization.isotropic import optimize_isotropic as optimize_isotropic
from .optimization.jitter import jitter as jitter
from .optimization.published import optimize_anisotropic_paper as optimize_anisotropic_paper
from .optimization.published import optimize_isotropic_paper as optimize_isotropic_paper
from .regions.answer import Answer as Answer
from .regions.memory import Memory as Memory
from .regions.region import ABSTAIN as ABSTAIN
from .regions.region import Region as Region
from .regions.region import superset as superset
from .selection import Best as Best
from .selection import certify_best as certify_best
from .smoothing import SmoothedClassifier as SmoothedClassifier
from .stopping import Hopeless as Hopeless
from .stopping import Improvement as Improvement
from .stopping import Target as Target
from .training.loop import Recipe as Recipe
from .training.loop import train as train

__version__: str
