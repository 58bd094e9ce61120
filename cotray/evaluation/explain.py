"""Where a network looks: Grad-CAM heat maps of cells (Selvaraju et al., ICCV 2017), by captum's LayerGradCam.

Shapes: B images of (C, H, W); the explained layer gives (B, K, h, w).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cotray.errors import DataError, ModelError

Heat = NDArray[np.float32]
Rgb = NDArray[np.uint8]


def grad_cam(net: nn.Module, layer: nn.Module, x_BCHW: Tensor, batch: int = 32) -> Heat:
    """(B, H, W) float32 in [0, 1]: where ``layer``, a module of ``net``, speaks for malignant.

    ``net`` gives one logit of malignant, (B,) or (B, 1), or two, (B, 2), of normal and malignant. Every
    map is scaled by its own maximum, so maps tell where, not how much; one that nothing speaks for is 0.
    Batches of ``batch`` go to the network's device. The network runs in evaluation mode, whatever mode it
    is in, and is left as it was: same modes, no gradients.

    Raises ModelError where the layer gives no maps or the network no such logits.
    """
    from captum.attr import LayerGradCam  # brings matplotlib along: not at import

    device = next((p.device for p in net.parameters()), x_BCHW.device)
    cam = LayerGradCam(lambda x: _malignant(net(x)), layer)
    maps = [np.zeros((0, *x_BCHW.shape[2:]), np.float32)]
    with _evaluating(net):
        for part in x_BCHW.detach().split(batch) if len(x_BCHW) else ():
            # A private copy that wants gradients: they reach the layer also where all weights are frozen.
            seen = part.to(device, torch.float32, copy=True).requires_grad_()
            found = cam.attribute(seen, relu_attributions=True)
            maps.append(_scaled(found, part.shape[2:]))
    return np.concatenate(maps)


def heat_overlay(rgb_HW3: Rgb, heat_HW: NDArray[np.floating], strength: float = 0.65) -> Rgb:
    """(H, W, 3) uint8: the picture with heat in [0, 1] laid on, red where weak and yellow where strong.

    Where there is no heat the picture shows through unchanged; ``strength`` is the opacity of heat 1.
    Raises DataError where the shapes differ.
    """
    if rgb_HW3.shape != (*heat_HW.shape, 3):
        raise DataError(f"A heat map of {heat_HW.shape} does not fit a picture of {rgb_HW3.shape}.")
    heat = np.clip(np.asarray(heat_HW, np.float32), 0, 1)[..., None]
    colour = np.concatenate([np.full_like(heat, 255), 255 * heat, np.zeros_like(heat)], axis=2)
    opacity = strength * heat
    return np.asarray(np.round(rgb_HW3 * (1 - opacity) + colour * opacity), np.uint8)


def _malignant(logits: Tensor) -> Tensor:
    """(B,): the logit that speaks for malignant."""
    if logits.ndim == 1:
        return logits
    if logits.ndim == 2 and logits.shape[1] in (1, 2):
        return logits[:, -1]
    raise ModelError(f"Grad-CAM needs one or two logits per image, this network gives {tuple(logits.shape)}.")


def _scaled(found: Tensor | tuple[Tensor, ...], size: torch.Size) -> Heat:
    """The layer's maps at the input's size, each divided by its maximum."""
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise ModelError("Grad-CAM needs a layer that gives maps (B, K, h, w).", cure="Name a convolution.")
    maps = F.interpolate(found.detach(), tuple(size), mode="bilinear", align_corners=False)[:, 0]
    top = maps.amax(dim=(1, 2), keepdim=True)
    return np.asarray((maps / top.clamp_min(1e-12)).clamp(0, 1).cpu().numpy(), np.float32)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each module's own mode afterwards."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
