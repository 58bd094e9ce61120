"""The bundle as an MLflow pyfunc model, logged from this file's code: nothing is pickled.

Input: a table with one column ``image`` of encoded image bytes (PNG, JPEG, BMP, TIFF).
Output: class, probability, refer, model_version, and box, cells, set as JSON text, per row.
"""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class CotrayModel(PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Loads the verified bundle once; answers images."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load the bundle among the model's artifacts."""
        from cotray.bundle import load_bundle
        from cotray.predictor import Predictor

        self.predictor = Predictor(load_bundle(context.artifacts["bundle"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each row's image. Raises DecodeError naming what is wrong with it."""
        rows = [self.predictor.predict(bytes(data)).as_dict() for data in model_input["image"]]
        for row in rows:
            row |= {name: json.dumps(row[name]) for name in ("box", "cells", "set")}
        return pd.DataFrame(rows)


mlflow.models.set_model(CotrayModel())
