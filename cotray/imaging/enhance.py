"""Contrast and sharpness (paper, section 3.2), and the methods of its ablation (Table 7).

``ENHANCEMENTS`` maps each ``enhance.method`` to a function of (H, W, 3) uint8 RGB; every method keeps
shape and dtype. Methods that change contrast act on L of Lab, so that they leave hue alone.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.config import EnhanceConfig
from cotray.errors import UnknownNameError, WeightsError, nearest

if TYPE_CHECKING:  # ingest's workers start several times as fast without it
    from torch import Tensor, nn

Rgb = NDArray[np.uint8]
Plane = NDArray[np.uint8]
Enhancement = Callable[[Rgb, EnhanceConfig], Rgb]

SHARPEN_KERNEL = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
MIRNET_MULTIPLE = 8
"""MIRNet halves its input up to three times: sides are padded to a multiple of this."""


def enhance(rgb: Rgb, cfg: EnhanceConfig, model: nn.Module | None = None) -> Rgb:
    """The image after ``cfg.method``; ``model`` is the restoration network of ``mirnet``.

    Its weights are not looked for here: see :func:`load_network`. Raises WeightsError for `mirnet` without
    a model, UnknownNameError for a method that is not listed.
    """
    if cfg.method == "mirnet" and model is not None:
        return restore(rgb, model)
    if cfg.method not in ENHANCEMENTS:
        raise UnknownNameError(
            f"Unknown enhancement '{cfg.method}'.",
            where="enhance.method",
            cure=nearest(cfg.method, ENHANCEMENTS),
        )
    return ENHANCEMENTS[cfg.method](rgb, cfg)


def clahe(rgb: Rgb, cfg: EnhanceConfig) -> Rgb:
    """Contrast-limited adaptive histogram equalisation of L (Zuiderveld 1994)."""
    grid = (cfg.tiles, cfg.tiles)
    equalise = cv2.createCLAHE(clipLimit=cfg.clip_limit, tileGridSize=grid)
    return _on_lightness(rgb, equalise.apply)


def sharpen(rgb: Rgb, cfg: EnhanceConfig) -> Rgb:
    """The 3x3 kernel with centre 5 and four -1, on each channel; edges mirrored."""
    return np.asarray(cv2.filter2D(rgb, -1, SHARPEN_KERNEL, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def clahe_sharpen(rgb: Rgb, cfg: EnhanceConfig) -> Rgb:
    """The paper's: CLAHE, then sharpen."""
    return sharpen(clahe(rgb, cfg), cfg)


def equalise_histogram(rgb: Rgb, cfg: EnhanceConfig) -> Rgb:
    """Global histogram equalisation of L."""
    return _on_lightness(rgb, cv2.equalizeHist)


def fuzzy(rgb: Rgb, cfg: EnhanceConfig) -> Rgb:
    """Fuzzy intensification of L, one pass of the operator INT (Pal and King, 1981).

    The membership of a pixel in "bright" is mu = (L - min) / (max - min); INT pushes it away from
    one half: 2 mu^2 up to one half, 1 - 2 (1 - mu)^2 above. A flat image is left alone.
    """
    return _on_lightness(rgb, intensify)


def intensify(lightness: Plane) -> Plane:
    """INT on one uint8 plane (H, W), as a look-up table."""
    low, high = int(lightness.min()), int(lightness.max())
    if low == high:
        return lightness
    mu = np.clip((np.arange(256) - low) / (high - low), 0, 1)
    mu = np.where(mu <= 0.5, 2 * mu**2, 1 - 2 * (1 - mu) ** 2)
    table = np.round(low + mu * (high - low)).astype(np.uint8)
    return np.asarray(table[lightness], np.uint8)


def unchanged(rgb: Rgb, cfg: EnhanceConfig) -> Rgb:
    """The image itself."""
    return rgb


def mirnet_without_weights(rgb: Rgb, cfg: EnhanceConfig) -> Rgb:
    """What `mirnet` says where no model was given. Raises WeightsError always."""
    raise no_weights(cfg)


def no_weights(cfg: EnhanceConfig) -> WeightsError:
    """The error of `mirnet` without a network."""
    return WeightsError(
        "enhance.method=mirnet needs trained MIRNet weights, and none were given.",
        where=cfg.mirnet_weights or "enhance.mirnet_weights",
        cure="Set enhance.mirnet_weights to a TorchScript file, or use enhance.method=clahe_sharpen.",
    )


def load_network(data: bytes, where: str) -> nn.Module:
    """The network of a TorchScript file, on the CPU; ``where`` is named in errors.

    TorchScript runs in its own interpreter: unlike a pickled module, it cannot run Python code.
    Raises WeightsError for anything else, such as a state dict saved by ``torch.save``.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.export has no free image size yet
            network: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")
    except RuntimeError as error:
        raise WeightsError(
            f"This is not a TorchScript file: {str(error).splitlines()[0][:200]}",
            where=where,
            cure="Export the network with torch.jit.trace or torch.jit.script, and torch.jit.save.",
        ) from error
    return network.eval()


def restore(rgb: Rgb, model: nn.Module) -> Rgb:
    """The image through a restoration network that maps (1, 3, H, W) in 0..1 to the same shape.

    Sides are mirrored up to a multiple of 8 and cut back. Raises WeightsError for another output shape, and
    where the network fails on the image.
    """
    import torch

    height, width = rgb.shape[:2]
    down, right = -height % MIRNET_MULTIPLE, -width % MIRNET_MULTIPLE
    padded = cv2.copyMakeBorder(rgb, 0, down, 0, right, cv2.BORDER_REFLECT_101)
    x_13HW = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        y_13HW = _run(model, x_13HW)
    if y_13HW.shape != x_13HW.shape:
        raise WeightsError(
            f"The MIRNet model gave {tuple(y_13HW.shape)} for {tuple(x_13HW.shape)}.",
            where="enhance.mirnet_weights",
            cure="Export a model that maps (1, 3, H, W) in 0..1 to the same shape.",
        )
    pixels = (y_13HW[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return pixels[:height, :width].contiguous().numpy()


def _run(model: nn.Module, x_13HW: Tensor) -> Tensor:
    try:
        y: Tensor = model(x_13HW)
    except RuntimeError as error:  # TorchScript's own errors are RuntimeErrors, too
        raise WeightsError(
            f"The MIRNet model failed: {str(error).strip().splitlines()[-1][:200]}",
            where="enhance.mirnet_weights",
            cure="Export a model that maps (1, 3, H, W) in 0..1 to the same shape.",
        ) from error
    return y


def _on_lightness(rgb: Rgb, change: Callable[[Plane], Plane]) -> Rgb:
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)
    cv2.insertChannel(change(cv2.extractChannel(lab, 0)), lab, 0)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), np.uint8)


ENHANCEMENTS: dict[str, Enhancement] = {
    "clahe_sharpen": clahe_sharpen,
    "none": unchanged,
    "he": equalise_histogram,
    "fuzzy": fuzzy,
    "clahe": clahe,
    "sharpen": sharpen,
    "mirnet": mirnet_without_weights,
}
"""Every value of ``enhance.method``."""
