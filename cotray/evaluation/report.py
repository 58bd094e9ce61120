"""The report: one self-contained HTML page, without scripts and without a single network address.

Everything that comes from outside (file names, classes, reasons, config) is escaped by the template
engine; the page's own content policy forbids scripts and remote content besides.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jinja2 import Template
from markupsafe import Markup
from numpy.typing import NDArray

from cotray.evaluation import wording
from cotray.evaluation.audit_report import section
from cotray.evaluation.figures import CLASS_NAMES
from cotray.evaluation.metrics import LOWER_IS_BETTER
from cotray.evaluation.page import data_uri, make_environment
from cotray.evaluation.report_data import Reference, ReportData, Sample
from cotray.evaluation.synthetic_report import SPACES, spaces, synthetic_rows

__all__ = ["Reference", "ReportData", "Sample", "render_report"]


def render_report(data: ReportData) -> str:
    """The whole page as HTML text; write it as UTF-8. Parts that ``data`` lacks are left out."""
    return _template().render(
        data=data,
        banners=wording.banners(data),
        verdict=wording.verdict(data),
        operating_point=wording.operating_point(data),
        comparison=wording.compare_with_floor(data),
        leak_gap=wording.leak_gap(data),
        audit=section(data.audit) if data.audit else None,
        notes=wording.plain_notes(data),
        tiles=_tiles(data),
        rows=_comparison_rows(data),
        axis=_axis(data),
        stages=_stages(data.seconds),
        quarantined=sum(data.quarantine.values()),
        synthetic_spaces=[SPACES[space] for space in spaces(data.synthetic_quality)],
        synthetic_rows=synthetic_rows(data.synthetic_quality),
    )


@dataclass(frozen=True)
class Bar:
    """A figure and its interval on the page's axis, in percent of its length."""

    at: float
    low: float
    width: float


@dataclass(frozen=True)
class Tile:
    """One metric with its interval."""

    name: str
    meaning: str
    value: str
    interval: str
    bar: Bar
    lead: bool


def _tiles(data: ReportData) -> list[Tile]:
    lead = wording.lead_metric(data)
    order = [lead, *(name for name in wording.NAMES if name != lead)]
    return [_tile(name, data, name == lead) for name in order if name in data.metrics]


def _tile(name: str, data: ReportData, lead: bool) -> Tile:
    interval = data.intervals.get(name)
    value = data.metrics[name]
    shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "no interval"
    meaning = wording.NAMES.get(name, ("", ""))[1]
    return Tile(wording.title(name), meaning, f"{value:.3f}", shown, _bar(value, interval, 0.0), lead)


def _bar(value: float, interval: tuple[float, float] | None, start: float) -> Bar:
    """Positions on an axis from ``start`` to 1."""
    low, high = interval or (value, value)
    at, left, right = (100 * min(max((v - start) / (1 - start), 0), 1) for v in (value, low, high))
    return Bar(round(at, 2), round(left, 2), round(right - left, 2))


def _axis(data: ReportData) -> list[float]:
    """Ticks of the comparison's axis: from the tenth below everything shown, at most 0.8, up to 1."""
    shown = _compared(data)
    values = [side[name] for side in (data.metrics, data.floor_metrics) for name in shown]
    lows = [
        side[name][0] for side in (data.intervals, data.floor_intervals) for name in shown if name in side
    ]
    low = min([*values, *lows], default=0.5)
    step = 0.1 if low >= 0.5 else 0.2
    start = min(0.8, step * math.floor(low / step))
    return [round(start + step * i, 1) for i in range(round((1 - start) / step) + 1)]


def _compared(data: ReportData) -> list[str]:
    """Metrics that both sides have and that share the axis (greater is better)."""
    both = [name for name in wording.NAMES if name in data.metrics and name in data.floor_metrics]
    return [name for name in both if name not in LOWER_IS_BETTER]


def _comparison_rows(data: ReportData) -> list[dict[str, Any]]:
    start = _axis(data)[0]
    rows = []
    for name in _compared(data):
        sides = (
            ("cotray", data.metrics[name], data.intervals.get(name)),
            ("colour", data.floor_metrics[name], data.floor_intervals.get(name)),
        )
        parts = [(side, wording.figure_text(v, i), _bar(v, i, start)) for side, v, i in sides]
        rows.append({"name": wording.title(name), "sides": parts})
    return rows


def _stages(seconds: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """(stage, duration, share of the longest in percent)."""
    longest = max(seconds.values(), default=1.0) or 1.0
    return [(name, wording.duration(s), round(100 * s / longest, 1)) for name, s in seconds.items()]


PHOTO_SIDE = 720
"""Longer side in pixels of the samples' pictures on the page: fields as they are would be 10 MB each."""


def _photo_uri(png: bytes) -> Markup:
    """A sample's picture as a JPEG that is no larger than the page shows it."""
    bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) if png else None
    if bgr is None:
        return data_uri(png)
    return data_uri(cv2.imencode(".jpg", _shrink(bgr), (cv2.IMWRITE_JPEG_QUALITY, 88))[1].tobytes(), "jpeg")


def _shrink(bgr: NDArray[Any]) -> NDArray[Any]:
    scale = PHOTO_SIDE / max(bgr.shape[:2])
    if scale >= 1:
        return bgr
    return np.asarray(cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _has_fields(samples: Sequence[Sample]) -> bool:
    """Whether some pictures are much wider than high: fields of many cells, shown larger than cells."""
    sizes = [struct.unpack(">II", s.png[16:24]) for s in samples if s.png[:4] == b"\x89PNG" and s.png[23:]]
    return any(width > 1.2 * height for width, height in sizes)


def _class_name(label: int | None) -> str:
    return "unknown" if label is None else CLASS_NAMES[label]


@functools.cache
def _template() -> Template:
    environment = make_environment(
        photo_uri=_photo_uri,
        has_fields=_has_fields,
        class_name=_class_name,
        title_of=wording.title,
        duration=wording.duration,
    )
    return environment.get_template("report.html")
