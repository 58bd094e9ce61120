"""A small table that tests select from."""

from __future__ import annotations

import numpy as np
import pandas as pd

WIDTH = 24


def frame(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    """Three classes in groups of four rows; the first three columns tell them apart."""
    rng = np.random.default_rng(seed)
    code = np.arange(rows) // 4 % 3
    feat = rng.normal(size=(rows, WIDTH))
    feat[:, :3] += 1.2 * code[:, None]
    made = pd.DataFrame(feat, columns=[f"f{i}" for i in range(WIDTH)])
    return made.assign(kind=np.array(["red", "green", "blue"])[code], patient=np.arange(rows) // 4)
