"""Errors that a user can correct. Each message says what is wrong, the value and what to do.

TrainingError
├── ConfigError       a setting is out of range, or contradicts another one
├── DatasetError      the data set is missing, or its layout is wrong
├── DownloadError     a file cannot be downloaded, or is not the expected file
├── WeightsError      the backbone's weights are missing, or do not fit
├── ModelFileError    a model file or its report cannot be used
└── TestLogError      a score differs from the test log, or is missing there
"""

from __future__ import annotations


class TrainingError(ValueError):
    """Base class: ``python -m training`` prints the message and exits with status 2."""


class ConfigError(TrainingError):
    """A setting is out of range. The message names it, its value and what is allowed."""


class DatasetError(TrainingError):
    """The data set is missing, or its layout is wrong."""


class DownloadError(TrainingError):
    """A file cannot be downloaded, or it is not the expected file."""


class WeightsError(TrainingError):
    """The backbone's weights are missing, or do not fit the network."""


class ModelFileError(TrainingError):
    """A model file or its report cannot be used."""


class TestLogError(TrainingError):
    """A score differs from the test log, or is missing there. Nothing is written then."""

    __test__ = False  # pytest collects classes whose name begins with Test
