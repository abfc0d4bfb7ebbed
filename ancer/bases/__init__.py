"""Orthonormal bases in which noise and regions may be anisotropic."""

from ancer.bases.basis import Basis as Basis
from ancer.bases.named import basis_named as basis_named
from ancer.bases.own import Dense as Dense
from ancer.bases.own import Own as Own
from ancer.bases.own import pca as pca
