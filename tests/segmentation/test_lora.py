from __future__ import annotations

import torch
from torch import Tensor

from cotray.config import SegmentConfig
from cotray.learning import Batch
from cotray.segmentation.learner import LeuSamLearner
from cotray.segmentation.leusam import LeuSam, build_sam

SIDE = 64
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,), "window_size": 14}


def small_sam(cfg: SegmentConfig) -> LeuSam:
    return build_sam(cfg, SMALL, width=64, mlp=64)


def learner(rank: int, points: float = 0.0) -> LeuSamLearner:
    cfg = SegmentConfig(variant="vit_b", image_size=SIDE, lora_rank=rank, points=points)
    made = LeuSamLearner(cfg, 0, None, small_sam)
    made.prepare(torch.device("cpu"), lambda net: net, 10)
    return made


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (4, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(4, SIDE, SIDE, dtype=torch.uint8)
    mask[:, 16:48, 16:48] = 1
    return {"image": image, "mask": mask, "box": torch.tensor([[16.0, 16, 48, 48]]).expand(4, 4)}


def trained(rank: int, steps: int = 5) -> LeuSamLearner:
    made, given = learner(rank), batch()
    for step in range(steps):
        torch.manual_seed(step)
        made.schedule()
        made.train_step(given)
    made.set_train(False)
    return made


def answer(model: LeuSam, given: Batch) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(given["image"], given["box"])[0]
    return logits


def test_adapters_start_from_the_checkpoints_encoder() -> None:
    plain, adapted = learner(0).nets["leusam"], learner(3).nets["leusam"]
    torch.testing.assert_close(answer(adapted, batch()), answer(plain, batch()), rtol=0, atol=1e-6)


def test_adapters_and_decoder_alone_are_trained_and_saved() -> None:
    names = set(trained(3).weights()["leusam"])
    adapters = {name for name in names if not name.startswith("mask_decoder.")}
    assert len(adapters) == 2 * 2, "up and down in each of two blocks"
    assert all(".attn.qkv.parametrizations.weight." in name for name in adapters)
    assert names - adapters == {
        f"mask_decoder.{k}" for k in learner(0).nets["leusam"].mask_decoder.state_dict()
    }


def test_training_moves_the_encoder_by_a_matrix_of_the_rank_and_nothing_else_of_it() -> None:
    before, after = learner(0).nets["leusam"].state_dict(), trained(3).whole()
    assert set(after) == set(before), "merged weights have their plain names"
    for name, value in after.items():
        if not name.startswith("mask_decoder."):
            moved = name.endswith("attn.qkv.weight")
            assert torch.equal(value, before[name]) != moved, name
            if moved:
                assert torch.linalg.matrix_rank(value - before[name], rtol=1e-4) == 3


def test_merged_weights_answer_as_adapted_ones() -> None:
    made, given = trained(3), batch()
    adapted = answer(made.nets["leusam"], given)
    plain = small_sam(SegmentConfig(variant="vit_b", image_size=SIDE)).eval()
    plain.load_state_dict(made.whole())
    torch.testing.assert_close(answer(plain, given), adapted, rtol=0, atol=1e-5)


def test_saved_adapters_go_on_in_another_process() -> None:
    made, other = trained(3), learner(3)
    other.load_state_dict(made.state_dict())
    other.set_train(False)
    assert torch.equal(answer(other.nets["leusam"], batch()), answer(made.nets["leusam"], batch()))
