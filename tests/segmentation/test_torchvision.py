from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cotray.segmentation._torchvision import plain_nms

WORKS = """
import torch, segment_anything, torchvision
boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30.0]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5)
apart = torchvision.ops.batched_nms(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 1, 0]), 0.5)
print(kept.tolist(), apart.tolist())
"""
NATIVE = """
from cotray.segmentation._torchvision import _keep, plain_nms
if not _keep:  # the library's own kernel, not our declaration
    torch.manual_seed(0)
    for threshold in (0.0, 0.3, 0.5, 0.9):
        low = torch.rand(40, 2) * 50
        boxes, scores = torch.cat([low, low + (torch.rand(40, 2) * 20).round()], 1), torch.rand(40)
        assert torch.equal(torchvision.ops.nms(boxes, scores, threshold), plain_nms(boxes, scores, threshold))
"""


def python(code: str) -> str:
    """What a fresh interpreter prints; its warnings are not errors here, its failures are."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def numpy_nms(boxes: NDArray[np.float64], scores: NDArray[np.float64], threshold: float) -> list[int]:
    """Greedy suppression by the book: the best box goes out, and all that overlap it too much."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if not overlap(boxes[best], boxes[i]) > threshold]
    return kept


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either if either else 0.0


def test_segment_anything_imports_and_asking_twice_is_harmless() -> None:
    """Where the library's own kernel loads, it must agree with the plain one too."""
    ensure = "from cotray.segmentation._torchvision import ensure_torchvision\n"
    out = python(
        ensure + "ensure_torchvision(); ensure_torchvision()" + WORKS + "ensure_torchvision()" + NATIVE
    )
    assert out.strip() == "[1, 2] [1, 2, 0]"


def test_declared_operators_stand_in_for_a_library_that_does_not_load() -> None:
    refuse = """
import torch
from cotray.segmentation import _torchvision as t
def refuse(path):
    raise OSError(f"{path} was built for another torch")
torch.ops.load_library = refuse
t.ensure_torchvision()
"""
    out = python(refuse + WORKS + "t.ensure_torchvision()\nprint(len(t._keep))\n")
    assert out.split("\n") == ["[1, 2] [1, 2, 0]", "1", ""], "declared once, and not again"


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_plain_nms_agrees_with_numpy(threshold: float) -> None:
    rng = np.random.default_rng(int(10 * threshold))
    for count in (1, 5, 30, 60):
        low = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([low, low + rng.integers(0, 25, (count, 2))], axis=1)  # some have no area
        scores = rng.permutation(count) / count
        kept = plain_nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
        assert kept.dtype == torch.int64
        assert kept.tolist() == numpy_nms(boxes, scores, threshold)


def test_boxes_without_area_are_kept_as_torchvision_keeps_them() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [9, 9, 9, 9], [0, 0, 4, 4]])
    assert plain_nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.5).tolist() == [0, 1, 2, 3]


def test_equal_scores_keep_their_order_and_none_gives_none() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 29, 29]])
    assert plain_nms(boxes, torch.ones(3), 0.5).tolist() == [0, 2]
    assert plain_nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
