"""What cached image embeddings are worth: seconds per epoch of fine-tuning behind a frozen encoder.

``python -m benchmarks.embedding_cache``: a SAM of 384 x 12 (between `tiny` and `vit_b`) at 256 pixels with
SAM's own mask decoder, one thread. Both sides make the same steps on the same windows (noise: what is in them
costs nothing); seconds are the process' own (CPU), so that a busy machine does not count. Validation, storage
and Ray are left out on both sides.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cotray.config import SegmentConfig, TrainConfig
from cotray.segmentation.learner import LeuSamLearner
from cotray.segmentation.leusam import LeuSam, build_sam

ENCODER = {
    **{"embed_dim": 384, "depth": 12, "num_heads": 6},
    **{"global_attn_indexes": (2, 5, 8, 11), "window_size": 14},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2, help="timed, after one that is not")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cfg = SegmentConfig(variant="vit_b", image_size=256, train=TrainConfig(batch_size=given.batch))
    windows = {
        "image": torch.randint(256, (given.cells, 256, 256, 3), dtype=torch.uint8),
        "mask": torch.randint(2, (given.cells, 256, 256), dtype=torch.uint8),
        "box": torch.tensor([[48.0, 48, 208, 208]]).repeat(given.cells, 1),
    }
    learner = LeuSamLearner(cfg, 0, None, build)
    learner.prepare(torch.device("cpu"), lambda net: net, 1000)
    plain = timed(lambda: epoch(learner, windows, given.batch), given.epochs)
    started = time.process_time()
    embedding = embed(learner, windows["image"], given.batch)
    once = time.process_time() - started
    cached_windows = {"mask": windows["mask"], "box": windows["box"], "embedding": embedding}
    cached = timed(lambda: epoch(learner, cached_windows, given.batch), given.epochs)
    print(f"{given.cells} cells, batches of {given.batch}, CPU seconds on one thread")
    print(f"epoch without cache {plain:.2f}, with {cached:.2f}: {plain / cached:.1f} times as fast")
    print(f"embedding all windows, once: {once:.2f}")


def build(cfg: SegmentConfig) -> LeuSam:
    return build_sam(cfg, ENCODER)


def timed(work: Callable[[], None], times: int) -> float:
    work()
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def epoch(learner: LeuSamLearner, windows: dict[str, Tensor], batch: int) -> None:
    learner.set_train(True)
    for start in range(0, len(windows["mask"]), batch):
        learner.schedule()
        learner.train_step({key: value[start : start + batch] for key, value in windows.items()})


@torch.no_grad()
def embed(learner: LeuSamLearner, image_NSS3: Tensor, batch: int) -> Tensor:
    model = learner.nets["leusam"]
    assert isinstance(model, LeuSam)
    return torch.cat([model.embed(part).embedding_BCTT.half() for part in image_NSS3.split(batch)])


if __name__ == "__main__":
    main()
