"""What the figures show, in words (Markdown): under each in the notebooks, and in the report."""

FLOATING = "Not floating-point sound: these points are on no lattice (see `certify`)."
BETWEEN = (
    "Perturbed pictures lie between the points of the images' lattice, about which floating-point "
    "sound noise says nothing: here a certificate is as good as its real numbers."
)
CAPTIONS = {
    "F1": (
        "**F1**. A point, a line for each norm, and its certified region by three methods. Colour: "
        "votes for the two classes of the classifier that the certificate is about, smoothed with "
        "that $\\theta$; black line: where its class changes. The anisotropic region is longer "
        f"where this is far. {FLOATING}"
    ),
    "F2": (
        "**F2**. Images, and one random direction of the same proxy size in the shape of two "
        "methods' regions: the second moves the pixels that the class does not hang on. The size "
        "is the second region's proxy radius, at which both shapes have the same volume; only the "
        "second is certified there. Under each what changed (grey: nothing), on one scale."
    ),
    "F3": (
        "**F3**. Share of images that are right and certified with a radius of at least $r$: the "
        "largest ball in each region. Higher is better. Below a panel: what the best of several "
        "gives beyond the last of these, in points, if there is one."
    ),
    "F4": (
        "**F4**. The same against the proxy radius, the radius of the ball of equal volume: what "
        "anisotropy buys. The axis ends at five times the largest fixed radius; *beyond*: the "
        "share of images whose region is larger still."
    ),
    "F5": (
        "**F5**. $\\theta$ of single images, relative to the isotropic $\\theta_{iso}$ of each, on "
        "one scale for all: bright where the class bears much noise."
    ),
    "F6": (
        "**F6**. Regions of the first test points, in their order, before and after the memory. "
        "Colours are the answers; a cross is an abstention. On the right a region that gave way is "
        "drawn bold, dashed what it was, and a ring is a point that gets another answer. No two "
        f"regions of different answers overlap after it. {FLOATING}"
    ),
    "F7": (
        "**F7**. How many times larger the one method's region is than the other's, as powers of "
        "ten, image by image in order of it (those that both methods certify for one class). Above "
        "0 it is larger."
    ),
    "F8": (
        "**F8**. Certified accuracy against severity, a panel a family of perturbations: the share "
        "of images that are right, provably, at all severities up to this one. Dots: how often the "
        "smoothed classifier was right there, of the first images and few draws, without a proof. "
        f"{BETWEEN}"
    ),
    "F9": (
        "**F9**. One image, and the strongest picture of each family that is still certified, by "
        "method, with its severity: all weaker ones (of the grid's) get the same class. No region "
        f"made for norms reaches far towards a rotation or a shift. {BETWEEN}"
    ),
    "F10": (
        "**F10**. Share of images whose class is right and its probability under the noise at "
        "least $p$, by its lower bound; left of the dotted line a certificate abstains. At the "
        "right end, where all draws agree, so many can bound no more."
    ),
    "S1": (
        "**S1**. Left: bounds of one run as they grow with the draws. Right: probability that a "
        "bound, looked at after every hundred draws, is *ever* above the mean."
    ),
    "S2": (
        "**S2**. A network that reads the image off the rounding of $x + \\theta z$: votes for "
        "'black' at two images that differ by 2/255 in each pixel, with noise in floating point "
        "and on the lattice."
    ),
    "S3": (
        "**S3**. Proxy radius over that of the fixed certificate at its own share of alpha, images "
        "in order of it. *Best* is never below 1."
    ),
    "noisy": "Test images, and the same under the noise of training (shown clipped to [0, 1]).",
    "loss": "Mean training loss of each epoch.",
    "theta": "$\\theta$ of the first images, relative to the isotropic one, on one scale.",
    "theta-by-band": (
        "$\\theta$ relative to the isotropic one: of pixels where they are, of cosines by "
        "frequency, the slow ones at the top left."
    ),
    "two-pixels": (
        "All images of two pixels, the boundary, and the certified region round one image: in "
        "pixels a disk, in the basis of light and contrast a band along which only light changes."
    ),
    "regions": (
        "Images from the largest certified radius to the smallest, each moved in a random "
        "direction to the edge of its region, and what changed (grey: nothing), on one scale. All "
        "on the way there have its class. Images that abstain, at the right, have no region."
    ),
    "radii": (
        "Certified radius and proxy radius of all images, by method (the largest hundredth is left "
        "out)."
    ),
}
# which show regions of the experiments' certificates
OF_EXPERIMENTS = ("F2", "F3", "F4", "F5", "F7", "F8", "F9", "F10", "S3")
