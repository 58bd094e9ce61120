from __future__ import annotations

import pyarrow as pa
import pytest

from cotray import manifest
from cotray.errors import ManifestError


def test_missing_columns_become_null_and_unknown_ones_are_refused() -> None:
    rows = manifest.table([{"id": "a", "label": 1}, {"id": "b", "box": [0, 1, 2, 3]}])
    assert rows.schema.equals(manifest.SCHEMA)
    assert rows["label"].to_pylist() == [1, None]
    with pytest.raises(ManifestError, match="colour"):
        manifest.table([{"id": "a", "colour": "red"}])
    with pytest.raises(ManifestError):
        manifest.table([{"id": "a", "label": "not a number"}])


def test_light_drops_pixels_only() -> None:
    rows = manifest.table([{"id": "a", "image": b"png", "mask": b"png", "label": 0}])
    thin = manifest.light(rows)
    assert thin.schema.equals(manifest.SCHEMA)
    assert thin["image"].to_pylist() == [None]
    assert thin["label"].to_pylist() == [0]


def test_check_refuses_other_tables_and_duplicate_ids() -> None:
    with pytest.raises(ManifestError, match="missing columns"):
        manifest.check(pa.table({"id": ["a"]}))
    with pytest.raises(ManifestError, match="duplicate"):
        manifest.check(manifest.table([{"id": "a"}, {"id": "a"}]))


def test_assign_where_count() -> None:
    rows = manifest.assign(manifest.table([{"id": "a"}, {"id": "b"}]), "split", ["train", "test"])
    assert manifest.where(rows, split="test")["id"].to_pylist() == ["b"]
    assert manifest.count(rows, "split") == {"test": 1, "train": 1}
