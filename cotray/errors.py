"""The error tree. Every error says what happened, where, and how to cure it.

::

    CotrayError
    |-- ConfigError            a setting is wrong
    |   |-- UnknownKeyError        no such key; names the nearest valid one
    |   |-- UnknownNameError       no such preset, dataset, method ...; names the nearest
    |   `-- InvalidValueError      the key exists, the value is not acceptable; also a ValueError
    |-- DataError              the images or tables given are not usable; also a ValueError
    |   |-- DatasetNotFoundError   nothing at the given root
    |   |-- EmptyDatasetError      a root without a usable image
    |   |-- ClassError             one class only, or a class without a mapping
    |   |-- TooFewGroupsError      a class has too few groups for a disjoint split
    |   |-- DecodeError            one file cannot be read as an image (quarantined)
    |   |-- SourceChangedError     a file is not what ingest saw, and the run kept only a reference to it
    |   |-- LabelFileError         a CSV lacks a column or names missing files
    |   |-- DuplicateIdError       one id for two files, or two rows that differ
    |   |-- SubjectError           a subject in two classes, where a dataset gives each one class
    |   |-- FeatureError           feature vectors are of the wrong width, or not finite
    |   |   `-- NotNumbersError        a feature is not a number; also a TypeError
    |   `-- ManifestError          a table does not follow the manifest schema
    |-- StorageError           a folder, bucket or server cannot be reached
    |   `-- AccessError            it is there, but these credentials may not use it
    |-- RunError               the run folder or one of its stages is not usable
    |   |-- RunNotWritableError
    |   |-- RunMismatchError       the folder holds a run made with other settings
    |   |-- SplitChangedError      the frozen split, or a manifest under it, was changed
    |   `-- MissingStageError      an earlier stage has not been run
    |-- ModelError             weights or training went wrong
    |   |-- WeightsError           a file of weights is missing, truncated or of another architecture
    |   |-- NonFiniteLossError     training met NaN or infinity
    |   |-- MemoryShortageError    memory ran out, and batches cannot be cut smaller
    |   |-- TrainingError          a training job failed for good
    |   `-- BundleError            a bundle is incomplete or was altered
    |-- TrackingError          MLflow could not be reached or refused
    `-- ServeError             the HTTP service could not start

Those that are also Python's own are what scikit-learn and its callers expect of bad data or parameters.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CotrayError(Exception):
    """Base of every error a user can cause or cure.

    ``what`` is one sentence; ``where`` names the file, key or URI; ``cure`` says what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: object | None = None, cure: str | None = None) -> None:
        # All three go to Exception.args so that the error survives pickling between Ray processes.
        super().__init__(what, None if where is None else str(where), cure)
        self.what, self.where, self.cure = self.args

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.cure)

    def __str__(self) -> str:
        where = f" [{self.where}]" if self.where else ""
        cure = f" {self.cure}" if self.cure else ""
        return f"{self.what}{where}{cure}"


def _rebuild(kind: type[CotrayError], what: str, where: str | None, cure: str | None) -> CotrayError:
    return kind(what, where=where, cure=cure)


class ConfigError(CotrayError):
    """A setting is wrong."""


class UnknownKeyError(ConfigError):
    """No such configuration key."""


class UnknownNameError(ConfigError):
    """No such preset, dataset, method or stage."""


class InvalidValueError(ConfigError, ValueError):
    """The key exists, its value is not acceptable."""


class DataError(CotrayError, ValueError):
    """The images or tables given are not usable."""


class DatasetNotFoundError(DataError):
    """Nothing at the given root, or not the layout that was named."""


class EmptyDatasetError(DataError):
    """A root without one usable image."""


class ClassError(DataError):
    """Only one class is present, or a class has no mapping to normal or malignant."""


class TooFewGroupsError(DataError):
    """A class has too few groups (subjects) for a disjoint split."""


class DecodeError(DataError):
    """One file cannot be read as an image; ingest quarantines it with ``what`` as the reason."""


class SourceChangedError(DataError):
    """A file is gone or changed since ingest, and the run kept only a reference to it."""


class LabelFileError(DataError):
    """A CSV lacks a column, or names files that are not there."""


class DuplicateIdError(DataError):
    """Two files have one id, or one file has two rows that differ."""


class SubjectError(DataError):
    """A subject is in two classes, in a dataset where each has one."""


class FeatureError(DataError):
    """Feature vectors are of the wrong width, missing, or not finite."""


class NotNumbersError(FeatureError, TypeError):
    """A column of features holds something that is no number."""


class ManifestError(DataError):
    """A table does not follow the manifest schema."""


class StorageError(CotrayError):
    """A folder, bucket or server cannot be reached, or the package that speaks its protocol is missing."""


class AccessError(StorageError):
    """A place whose credentials are missing, wrong or not allowed to use it."""


class RunError(CotrayError):
    """The run folder or one of its stages is not usable."""


class RunNotWritableError(RunError):
    """The run folder cannot be created or written."""


class RunMismatchError(RunError):
    """The folder holds a run that cannot be continued with these settings."""


class SplitChangedError(RunError):
    """The frozen split, or a manifest that follows it, was changed after it was made."""


class MissingStageError(RunError):
    """An earlier stage has not been completed."""


class ModelError(CotrayError):
    """Weights or training went wrong."""


class WeightsError(ModelError):
    """A file of weights is missing, truncated or belongs to another architecture."""


class NonFiniteLossError(ModelError):
    """Training met NaN or infinity."""


class MemoryShortageError(ModelError):
    """Memory ran out in training, and batches cannot be cut smaller."""


class TrainingError(ModelError):
    """A training job failed for good, after its retries."""


class BundleError(ModelError):
    """A bundle is incomplete or was altered."""


class TrackingError(CotrayError):
    """MLflow could not be reached, or refused."""


class ServeError(CotrayError):
    """The HTTP service could not start."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A cure: ``Did you mean 'x'?`` where something is near, and the valid names either way."""
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Valid names: {', '.join(options)}."
