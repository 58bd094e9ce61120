"""GMod against explicit loops and against torch's own encoder layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cotray.config import BackboneConfig
from cotray.features.gmod import Block, GMod, attention, fold_tokens, split_patches


def small_gmod() -> GMod:
    torch.manual_seed(0)
    return GMod(BackboneConfig(image_size=32, patch=4, layers=2, heads=4, gmod_dropout=0.1)).eval()


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([1, 2, 3, 4]), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_fold_undoes_split(patch: int, rows: int, columns: int, channels: int) -> None:
    x = torch.rand(2, channels, rows * patch, columns * patch)
    tokens = split_patches(x, patch)
    assert tokens.shape == (2, rows * columns, patch * patch * channels)
    assert torch.equal(fold_tokens(tokens, patch, (rows * patch, columns * patch)), x)


def test_tokens_are_patches_row_by_row() -> None:
    x = torch.arange(2 * 3 * 4 * 8.0).view(2, 3, 4, 8)
    tokens = split_patches(x, 2)
    for number in range(8):
        row, column = divmod(number, 4)
        patch = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(tokens[:, number], patch.reshape(2, -1))


def attention_by_hand(block: Block, x_TD: np.ndarray) -> np.ndarray:
    """Eq. 7-8 for one image: per head softmax(q k' / sqrt(d)) v, token by token."""
    state = {name: value.detach().double().numpy() for name, value in block.state_dict().items()}
    q, k, v = np.split(x_TD @ state["qkv.weight"].T + state["qkv.bias"], 3, axis=1)
    tokens, width = x_TD.shape
    size = width // block.heads
    mixed = np.zeros_like(x_TD)
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(tokens):
            score = [math.exp(q[t, part] @ k[s, part] / math.sqrt(size)) for s in range(tokens)]
            for s in range(tokens):
                mixed[t, part] += score[s] / sum(score) * v[s, part]
    return np.asarray(mixed @ state["project.weight"].T + state["project.bias"])


def normed(x_TD: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    """Layer normalisation, token by token."""
    away = x_TD - x_TD.mean(axis=1, keepdims=True)
    scaled = away / np.sqrt((away**2).mean(axis=1, keepdims=True) + layer.eps)
    return np.asarray(scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy())


def gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def tokens_by_hand(gmod: GMod, image_3SS: np.ndarray) -> np.ndarray:
    """Eq. 3 (patches embedded, class token first, places added), 4 and 5 per layer, 6 for every token."""
    state = {name: value.detach().double().numpy() for name, value in gmod.state_dict().items()}
    side = image_3SS.shape[1] // gmod.patch
    patches = []
    for row in range(side):
        for column in range(side):
            y, x = row * gmod.patch, column * gmod.patch
            patches.append(image_3SS[:, y : y + gmod.patch, x : x + gmod.patch].reshape(-1))
    embedded = np.array(patches) @ state["embed.weight"].T + state["embed.bias"]
    z = np.concatenate([state["class_token"][0], embedded]) + state["position"][0]
    for number, block in enumerate(gmod.blocks):
        assert isinstance(block, Block)
        z = attention_by_hand(block, normed(z, block.norm1)) + z
        part = {
            i: (state[f"blocks.{number}.mlp.{i}.weight"], state[f"blocks.{number}.mlp.{i}.bias"])
            for i in (0, 3)
        }
        hidden = gelu(normed(z, block.norm2) @ part[0][0].T + part[0][1])
        z = hidden @ part[3][0].T + part[3][1] + z
    return normed(z, gmod.norm)


def test_tokens_are_equations_3_to_8_written_out() -> None:
    torch.manual_seed(5)
    gmod = GMod(BackboneConfig(image_size=32, patch=8, layers=2, heads=3)).eval()
    for parameter in gmod.parameters():
        nn.init.normal_(parameter, std=0.15)
    x = torch.randn(2, 3, 32, 32)
    expected = np.stack([tokens_by_hand(gmod, image) for image in x.double().numpy()])
    assert expected.shape == (2, 17, 192)
    np.testing.assert_allclose(gmod.tokens(x).detach().numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_the_softmax_loop(heads: int) -> None:
    torch.manual_seed(1)
    block = Block(12, heads, 2.0, 0.0).eval()
    x = torch.randn(1, 5, 12)
    expected = attention_by_hand(block, x[0].double().numpy())
    np.testing.assert_allclose(block.attend(x)[0].detach().numpy(), expected, atol=1e-5)


def torch_layer(block: Block, width: int, heads: int, hidden: int) -> nn.TransformerEncoderLayer:
    """torch's pre-norm layer with the block's weights."""
    layer = nn.TransformerEncoderLayer(
        width, heads, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_weight": "qkv.weight", "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "project.weight", "self_attn.out_proj.bias": "project.bias",
        "linear1.weight": "mlp.0.weight", "linear1.bias": "mlp.0.bias",
        "linear2.weight": "mlp.3.weight", "linear2.bias": "mlp.3.bias",
        "norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias",
        "norm2.weight": "norm2.weight", "norm2.bias": "norm2.bias",
    }  # fmt: skip
    state = block.state_dict()
    layer.load_state_dict({theirs: state[ours] for theirs, ours in names.items()})
    return layer


def test_attention_on_a_cpu_is_fp32_in_mixed_precision_too() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    plain = attention(q, k, v, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention(q, k, v, 0.0)
        halves = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 0.0)
    assert torch.equal(mixed, plain)
    assert halves.dtype is torch.float32
    torch.testing.assert_close(halves, plain, rtol=0, atol=0.02)


def test_block_is_torchs_pre_norm_layer() -> None:
    torch.manual_seed(2)
    block = Block(24, 4, 2.0, 0.0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, 7, 24)
    torch.testing.assert_close(block(x), torch_layer(block, 24, 4, 48)(x), atol=1e-5, rtol=1e-4)


def test_image_in_image_out() -> None:
    gmod = small_gmod()
    x = torch.rand(2, 3, 32, 32)
    assert gmod.tokens(x).shape == (2, 65, 48)
    assert gmod(x).shape == x.shape
    assert (
        GMod(BackboneConfig(image_size=32, patch=4), channels=4).tokens(torch.rand(1, 4, 32, 32)).shape[2]
        == 64
    )


def test_map_is_the_patch_tokens_without_the_class_token() -> None:
    gmod = small_gmod()
    x = torch.rand(1, 3, 32, 32)
    tokens, seen = gmod.tokens(x), gmod(x)
    torch.testing.assert_close(seen[0, :, :4, :4].flatten(), tokens[0, 1])
    torch.testing.assert_close(seen[0, :, 28:, 28:].flatten(), tokens[0, 64])


def test_every_patch_sees_every_other() -> None:
    gmod = small_gmod()
    x = torch.rand(1, 3, 32, 32)
    other = x.clone()
    other[:, :, :4, :4] += 1
    changed = (gmod.tokens(x) - gmod.tokens(other)).abs().amax(dim=2)
    assert (changed > 1e-6).all()


def test_places_count() -> None:
    """With positions learned, swapping two patches does not merely swap two tokens."""
    gmod = small_gmod()

    def swapped(x_BTD: Tensor) -> Tensor:
        return x_BTD[:, [1, 0, *range(2, 64)]]

    x = torch.rand(1, 3, 32, 32)
    mixed = fold_tokens(swapped(split_patches(x, 4)), 4, (32, 32))
    straight, crossed = gmod.tokens(x)[:, 1:], swapped(gmod.tokens(mixed)[:, 1:])
    assert (straight - crossed).abs().max() > 1e-3
    with torch.no_grad():
        gmod.position.zero_()
    torch.testing.assert_close(
        gmod.tokens(x)[:, 1:], swapped(gmod.tokens(mixed)[:, 1:]), atol=1e-5, rtol=1e-4
    )


def test_dropout_only_while_training() -> None:
    gmod = small_gmod()
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(gmod(x), gmod(x))
    gmod.train()
    assert not torch.equal(gmod(x), gmod(x))
