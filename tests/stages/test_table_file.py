"""Anyone's table, in every form that it may have, taken apart."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tables import WIDTH, frame

from cotray.errors import LabelFileError
from cotray.stages.table_file import read_table, take_apart
from cotray.storage import Folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame().to_parquet("F.parquet")


@pytest.mark.parametrize(
    "kind", ["F.parquet", "F.csv", "F.tsv", "F.csv.gz", "semicolons.csv", "parts", "memory://t/F.pq"]
)
def test_every_form_of_a_table_is_the_same_table(kind: str) -> None:
    rows = frame()
    if kind == "parts":
        Path("parts").mkdir()
        for part in range(3):
            rows.iloc[40 * part : 40 * part + 40].to_parquet(f"parts/{part}.parquet", index=False)
        Path("parts/_SUCCESS").touch()
    elif kind.endswith(".gz"):
        Path(kind).write_bytes(gzip.compress(rows.to_csv(index=False).encode()))
    elif kind.endswith("sv"):
        mark = {"F.csv": ",", "F.tsv": "\t", "semicolons.csv": ";"}[kind]
        rows.to_csv(kind, index=False, sep=mark)
    elif kind.startswith("memory"):
        Folder("memory://t").write_bytes("F.pq", Path("F.parquet").read_bytes())
    table = read_table(kind)
    columns = take_apart(table, "kind", "patient", ["f5", "f5"])
    assert list(columns.features) == [f"f{i}" for i in range(WIDTH) if i != 5]
    np.testing.assert_allclose(columns.features.to_numpy(), rows.drop(columns=["kind", "patient", "f5"]))
    assert columns.target.tolist() == rows["kind"].tolist()
    assert columns.groups is not None and columns.groups.tolist() == rows["patient"].tolist()
    assert columns.dropped == 0


def test_a_late_value_decides_a_columns_type() -> None:
    """Whole numbers for more than a megabyte, and then one that is not."""
    rows = 120_000
    text = "kind,f0\n" + "".join(f"a{i % 2},123456\n" for i in range(rows)) + "a0,0.5\n"
    Path("late.csv").write_text(text)
    columns = take_apart(read_table("late.csv"), "kind", None, [])
    assert columns.features["f0"].iloc[-1] == 0.5 and len(columns.target) == rows + 1


def test_a_frames_index_is_no_feature() -> None:
    frame().sample(frac=1, random_state=0).to_parquet("shuffled.parquet")
    assert "__index_level_0__" in pq.read_schema("shuffled.parquet").names
    columns = take_apart(read_table("shuffled.parquet"), "kind", "patient", [])
    assert list(columns.features) == [f"f{i}" for i in range(WIDTH)]
    assert any("index" in note for note in columns.notes)


def test_the_digest_is_that_of_the_content() -> None:
    Path("copy.parquet").write_bytes(Path("F.parquet").read_bytes())
    frame(seed=1).to_parquet("other.parquet")
    one, copy, other = (read_table(f"{name}.parquet").digest for name in ("F", "copy", "other"))
    assert one == copy != other


def test_a_name_is_looked_for_in_a_wide_table_without_naming_all() -> None:
    wide = pd.DataFrame(np.ones((8, 3000)), columns=[f"c{i}" for i in range(3000)])
    wide.to_parquet("wide.parquet")
    with pytest.raises(LabelFileError) as told:
        take_apart(read_table("wide.parquet"), "cc17", None, [])
    assert len(str(told.value)) < 300 and "more" in str(told.value)
