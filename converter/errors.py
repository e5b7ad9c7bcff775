"""What can go wrong between a model file and a published artifact.

::

    ConverterError          never raised itself, the command line prints it and exits with 2
    ├── SourceError         the model is missing, or cannot be converted
    ├── ConversionError     an option is wrong, or the file that was made must not be served
    ├── InspectionError     the file is not a TFLite model
    ├── AdoptionError       the model cannot become the shipped one
    └── PublishError        the upload failed, or would overwrite something else

A failed parity gate is not an error of this family. It is a result with its own exit status.
"""

from __future__ import annotations


class ConverterError(Exception):
    """Base of all errors that the command line shows as one sentence."""


class SourceError(ConverterError):
    """The model is missing, or cannot be converted."""


class ConversionError(ConverterError):
    """An option of the conversion is wrong, or the file that was made must not be served."""


class InspectionError(ConverterError):
    """The file is not a TFLite model, or is cut short."""


class AdoptionError(ConverterError):
    """The model cannot become the shipped one."""


class PublishError(ConverterError):
    """The upload failed, or would overwrite something else."""
