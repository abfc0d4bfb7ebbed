"""What stands in a report, in its order: captions of the tables, and the figures by file."""

CERTIFIED = {
    "T1": "$\\ell_2$ (Gaussian noise), the best over sigma",
    "T2": "$\\ell_1$ (uniform noise), the best over sigma",
}
SUPERSETS = "how often the region of {} contains the other method's"
COVERED = "median severity that the regions of correct images cover, by family"
EACH_SIGMA = {"T1": "$\\ell_2$, each sigma", "T2": "$\\ell_1$, each sigma"}
FIGURES = (
    "figures/F3",
    "coverage/F9",
    "coverage/F8",
    "figures/F4",
    "figures/F10",
    "toy/F1",
    "figures/F7",
    "figures/F2",
    "figures/F5",
    "toy/F6",
    "statistics/S1",
    "statistics/S2",
    "statistics/S3",
)
