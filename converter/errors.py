"""What can go wrong between a ``.keras`` file and a published artifact.

::

    ConverterError          never raised itself; the command line prints it and exits with 2
    ├── SourceError         the model to convert is missing, or not one that can be
    ├── ConversionError     the converter made a file that must not be served
    ├── InspectionError     the file to look into is not a TFLite model
    └── PublishError        the upload failed, or would overwrite something else

A failed parity gate is no error of this family: it is a result, with its own exit status.
"""

from __future__ import annotations


class ConverterError(Exception):
    """Base of all errors that the command line shows as one sentence."""


class SourceError(ConverterError):
    """The model to convert is missing, or not one that can be converted."""


class ConversionError(ConverterError):
    """The converter made a file that must not be served."""


class InspectionError(ConverterError):
    """The file to look into is not a TFLite model, or is cut short."""


class PublishError(ConverterError):
    """The upload failed, or would overwrite something else."""
