"""Presets: `tiny` for two CPU cores in minutes, `small` for one workstation, `paper` as published.

Each is a plain nested dict of what differs from the defaults of the tree (which are `tiny`).
"""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {}

SMALL: dict[str, Any] = {
    "segment": {"embed_dim": 192, "depth": 6, "heads": 6, "prompt_dim": 128, "cell_size": 160,
                "phantom_cells": 2000,
                "train": {"epochs": 30, "max_steps": None, "batch_size": 16, "lr": 1e-3}},
    "gan": {"image_size": 128, "channels": 512,
            "train": {"epochs": 150, "max_steps": None, "batch_size": 64, "lr": 2e-4, "weight_decay": 0.0,
                      "checkpoint_every": 1}},
    "backbone": {"name": "cotconet", "image_size": 160, "patch": 16, "layers": 6, "heads": 8,
                 "mlp_ratio": 4.0, "gmod_dropout": 0.1,
                 "train": {"epochs": 60, "max_steps": None, "batch_size": 64, "lr": 5e-4, "patience": 0}},
    "sca": {"agents": 30, "iterations": 50},
    "abhc": {"steps": 20},
    "fitness": {"folds": 5},
    "hdlc": {"hidden": (512, 256, 128, 64, 32),
             "train": {"epochs": 80, "max_steps": None, "batch_size": 64, "lr": 5e-4, "patience": 15}},
}  # fmt: skip

PAPER: dict[str, Any] = {
    "segment": {"variant": "vit_b", "image_size": 1024, "window": "image", "cell_size": 256,
                "train": {"epochs": 20, "max_steps": None, "batch_size": 8, "lr": 1e-4}},
    "gan": {"image_size": 256, "channels": 1024, "spectral_norm": False, "diffaugment": False,
            "use": "always",
            "train": {"epochs": 200, "max_steps": None, "batch_size": 64, "lr": 2e-4, "weight_decay": 0.0,
                      "checkpoint_every": 1}},
    "backbone": {"name": "cotconet", "image_size": 256, "patch": 16, "layers": 12, "heads": 12,
                 "mlp_ratio": 4.0, "skip": False, "gmod_scale": 1.0, "label_smoothing": 0.0,
                 "gmod_dropout": 0.1, "smod": {"dropout": 0.2},
                 "train": {"epochs": 100, "max_steps": None, "batch_size": 64, "lr": 3e-4, "patience": 0,
                           "smooth": 1}},
    "sca": {"agents": 20, "iterations": 20, "init": "random", "moves": "all", "greedy": False},
    "abhc": {"steps": 200, "moves": "all"},
    "select": {"scores": "anova", "ask": "training"},
    "fitness": {"scheme": "folds", "folds": 5, "soft": 0.0},
    "hdlc": {"hidden": (1024, 512, 256, 128, 64),
             "train": {"epochs": 100, "max_steps": None, "batch_size": 64, "lr": 3e-4, "patience": 0}},
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {"tiny": TINY, "small": SMALL, "paper": PAPER}
