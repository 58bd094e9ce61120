"""Makes `import torchvision` work beside a CPU build of torch.

``segment_anything`` imports torchvision for box operations. PyPI's torchvision is a CUDA build; beside a
CPU torch its extension does not load and the import fails with ``operator torchvision::nms does not
exist``. Loading the library by path brings the CPU kernels in; where even that fails, the two operators
that torchvision's import looks for are declared, `nms` with a plain implementation.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from torch import Tensor

_keep: list[torch.library.Library] = []
"""Libraries must stay referenced, or their operators vanish."""


def ensure_torchvision() -> None:
    """Make `import torchvision` safe in this process; call before anything imports it. Cheap to repeat."""
    if "torchvision" in sys.modules or _keep or _has_nms():
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        torch.ops.load_library(str(Path(spec.origin).parent / "_C.so"))
    except OSError:
        _declare_operators()
        return
    if not _has_nms():
        _declare_operators()


def _has_nms() -> bool:
    try:
        return hasattr(torch.ops.torchvision, "nms")
    except RuntimeError:
        return False


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", plain_nms, "CPU")
    _keep.append(library)
    from torchvision.ops import boxes

    boxes._assert_has_ops = lambda: None


def plain_nms(boxes_N4: Tensor, score_N: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that non-maximum suppression keeps, best first; (K,) int64.

    As torchvision's kernel: a box goes only where it overlaps *more* than the threshold, so that boxes
    without area, whose overlap is 0 / 0, stay.
    """
    order = torch.sort(score_N, dim=0, descending=True, stable=True).indices
    area = (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])
    kept: list[int] = []
    alive = torch.ones(len(boxes_N4), dtype=torch.bool)
    for index in order.tolist():
        if not alive[index]:
            continue
        kept.append(index)
        low = torch.maximum(boxes_N4[index, :2], boxes_N4[:, :2])
        high = torch.minimum(boxes_N4[index, 2:], boxes_N4[:, 2:])
        both = (high - low).clamp(min=0).prod(dim=1)
        alive &= ~(both / (area[index] + area - both) > iou_threshold)
    return torch.tensor(kept, dtype=torch.int64)
