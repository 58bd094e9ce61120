"""Stain normalisation (``enhance.stain``): an image's stain is made like a target's, by torchstain.

`macenko` (Macenko et al., ISBI 2009) takes an image apart into two stains and puts it together again with
the target's two; `reinhard` (Reinhard et al., 2001) gives each channel of Lab the target's mean and spread.

Both were made for sections stained with haematoxylin and eosin. Smears are stained with Wright-Giemsa:
azure and methylene blue in place of haematoxylin, eosin as there, and mixtures of both (that is what makes
a nucleus purple), so that "two stains" is a cruder picture of them; and `macenko` takes it that what is not
stained is near white: a yellow or dark background becomes a stain. Neither knows what a nucleus is:
`reinhard` moves with the number of red cells in view, `macenko` with what the strongest percent shows.
So `none` is the default, and whether the others help is to be measured on one's own data.

Cells on black keep their black: only what is not black is looked at and changed.

Shapes: H W pixels, P pixels looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torchstain.base import normalizers

from cotray.config import EnhanceConfig
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import InvalidValueError
from cotray.imaging.regions import lit_on_black

Rgb = NDArray[np.uint8]
Pixels = NDArray[np.uint8]

PHANTOM = 2
"""Number of the phantom that is the target where none is given: its background is nearly white, and its two
stains (Macenko: 0.44 0.86 0.26 and 0.26 0.66 0.71) are like those of many smears."""
LIGHT, FAINT = 240, 0.15
"""Macenko's transmitted light, and the optical density below which a pixel is background."""
FEWEST = 100
"""Fewer stained pixels than this tell nothing."""
FLAT = 1e-5
"""Variance of density, beside its main direction, below which there is one colour only."""
OUTSIDE = 0.1
"""Two pixels of a hundred lie outside the two stains by Macenko's definition. Where more than this share do,
torchstain's angles have wrapped around, as they can where the two stains differ more than their amounts."""
LEVEL = 0.1
"""The same for the spread of L, a or b."""
STRONGER = 4.0
"""What would have to be made this many times stronger is not there: noise would be shown in its place."""
SAMPLE = 20_000
"""Pixels from which it is judged whether an image can be normalised."""

UNSTAINED = "stain left as it was: nothing is stained, or in one colour only"
WEAK = "stain left as it was: one of the target's stains is hardly there"
OTHER_STAINS = "stain left as it was: its two stains are not those of the target"
OTHER_GROUND = "stain left as it was: of image and target, one is on black and the other is not"


class StainNormaliser:
    """Makes the stain of images like one target's."""

    def __init__(self, cfg: EnhanceConfig, target: Rgb | None = None) -> None:
        """``target``: (H, W, 3) uint8 RGB; None = drawn phantoms, one on plasma and one on black.

        Raises InvalidValueError for a target that is not stained in two colours.
        """
        self.fit = FITS[cfg.stain]
        targets = [_drawn("fields"), _drawn("c-nmc")] if target is None else [target]
        self.targets = {lit_on_black(image) is not None: self._fit_target(image, cfg) for image in targets}

    def __call__(self, rgb: Rgb) -> tuple[Rgb, str | None]:
        """((H, W, 3) uint8 RGB with the target's stain, None), or (``rgb`` itself, why it was left)."""
        lit = lit_on_black(rgb)
        target = self.targets.get(lit is not None)
        if target is None:
            return rgb, OTHER_GROUND
        where = np.ones(rgb.shape[:2], bool) if lit is None else lit
        pixels_P3 = rgb[where]
        why = target.unlike(self.fit(pixels_P3[:: max(1, len(pixels_P3) // SAMPLE)]))
        if why:
            return rgb, why
        out = rgb.copy()
        out[where] = target.normalise(pixels_P3)
        return out, None

    def _fit_target(self, target: Rgb, cfg: EnhanceConfig) -> Fitted:
        lit = lit_on_black(target)
        fitted = self.fit(target.reshape(-1, 3) if lit is None else target[lit])
        if fitted is None:
            raise InvalidValueError(
                "The stain target is not stained, or in one colour only.",
                where=cfg.stain_target or "enhance.stain_target",
                cure="Choose an image that shows red cells and leukocytes, or leave it out.",
            )
        return fitted


@dataclass(frozen=True)
class Fitted:
    """What was measured of an image's stain, and how to give it to another's pixels."""

    normalise: Callable[[Pixels], Pixels]
    """(P, 3) uint8 -> (P, 3) uint8 with this image's stain."""
    strength: NDArray[np.float64]
    """`macenko`: 99th percentile of each stain's concentration; `reinhard`: spread of L, a and b."""
    stains_32: NDArray[np.float64] | None = None
    """`macenko`: density of R, G, B of each stain, the one that takes more red first."""

    def unlike(self, image: Fitted | None) -> str | None:
        """Why an image cannot be made like this target, or None; ``image``: what was measured of it."""
        if image is None:
            return UNSTAINED
        if (image.strength * STRONGER < self.strength).any():
            return WEAK
        return OTHER_STAINS if self._swapped(image) else None

    def _swapped(self, image: Fitted) -> bool:
        """Whether one of the image's stains is nearer to the target's other one."""
        if self.stains_32 is None or image.stains_32 is None:
            return False
        cosine_22 = image.stains_32.T @ self.stains_32
        return bool((cosine_22.argmax(axis=1) != (0, 1)).any())


def _fit_macenko(pixels_P3: Pixels) -> Fitted | None:
    """None where there are not two stains: torchstain would raise LinAlgError or show noise."""
    density_P3 = -np.log((pixels_P3 + 1.0) / LIGHT)
    stained_P3 = density_P3[(density_P3 >= FAINT).all(axis=1)]
    if len(stained_P3) < FEWEST or np.linalg.eigvalsh(np.cov(stained_P3.T))[1] < FLAT:
        return None
    library = normalizers.MacenkoNormalizer(backend="numpy")
    library.fit(pixels_P3[:, None], Io=LIGHT, beta=FAINT)
    amount_P2 = stained_P3 @ np.linalg.pinv(library.HERef).T
    if (amount_P2 < 0).any(axis=1).mean() > OUTSIDE:
        return None

    def normalise(pixels_P3: Pixels) -> Pixels:
        image_P13, _, _ = library.normalize(pixels_P3[:, None], Io=LIGHT, beta=FAINT, stains=False)
        return np.asarray(image_P13[:, 0])

    return Fitted(normalise, np.asarray(library.maxCRef), np.asarray(library.HERef))


def _fit_reinhard(pixels_P3: Pixels) -> Fitted | None:
    """None where L, a or b is the same everywhere: torchstain would divide by zero."""
    if len(pixels_P3) < FEWEST:
        return None
    library = normalizers.ReinhardNormalizer(backend="numpy")
    library.fit(pixels_P3[:, None])
    spread = np.asarray(library.target_stds)
    if spread.min() < LEVEL:
        return None
    return Fitted(lambda pixels_P3: np.asarray(library.normalize(pixels_P3[:, None])[:, 0]), spread)


def _drawn(layout: str) -> Rgb:
    return draw_phantom(phantom_index(layout, 12, 2, seed=0)[PHANTOM]).rgb


FITS: dict[str, Callable[[Pixels], Fitted | None]] = {"macenko": _fit_macenko, "reinhard": _fit_reinhard}
"""Every value of ``enhance.stain`` but `none`."""
