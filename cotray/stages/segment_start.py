"""What the segmenter's training starts from: nothing, the weights that come with cotray, or a SAM checkpoint.

Checked before any stage begins; what the start holds is part of the segment stage's fingerprint.
"""

from __future__ import annotations

from cotray.config import Config, SegmentConfig
from cotray.errors import InvalidValueError, WeightsError
from cotray.segmentation.shipped import Shipped, differing, load_shipped
from cotray.stages.sam_checkpoint import checkpoint_mark, require_checkpoint


def shipped_start(segment: SegmentConfig) -> Shipped | None:
    """The weights that `segment.start=shipped` names; None where training starts from something else.

    Raises InvalidValueError where the settings describe another network than the shipped one, WeightsError
    where the shipped file is damaged.
    """
    if segment.start != "shipped":
        return None
    shipped = load_shipped()
    other = differing(segment, shipped)
    if other:
        said = ", ".join(
            f"segment.{name}={mine} (shipped: {theirs})" for name, (mine, theirs) in other.items()
        )
        raise InvalidValueError(
            f"The LeuSAM that comes with cotray is another network than these settings describe: {said}.",
            where="segment.start",
            cure="Leave these settings as they are by default, or start with --set segment.start=scratch.",
        )
    return shipped


def require_start(config: Config) -> None:
    """Raise where training cannot start from what is asked for: see :func:`shipped_start`,
    :func:`cotray.stages.sam_checkpoint.require_checkpoint`."""
    shipped_start(config.segment)
    require_checkpoint(config)


def start_mark(config: Config) -> dict[str, str]:
    """What the segment stage's outcome depends on beside its settings: what its start holds."""
    try:
        shipped = shipped_start(config.segment)
    except (InvalidValueError, WeightsError):  # said by require_start, and only if the stage is to be done
        shipped = None
    return checkpoint_mark(config) | ({"shipped_weights": shipped.digest} if shipped else {})
