"""`python -m deploy.image.names [MODEL]`: print what stack and image are called by default.

The name comes from the artifact. Reads the file's metadata only and needs no package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lambda_function import SHIPPED_MODEL
from lambda_function.metadata import MetadataError, read_metadata

# Stacks of the project's own model were named before artifacts had a say.
RELEASE = ("clothing-xception", "clothing-classifier")
FALLBACK = "image-classifier"
MAX_LENGTH = 40  # A stack's name has at most 49 (deploy/local_checks.py), "-staging" included.


def default_name(model: Path = SHIPPED_MODEL) -> str:
    """Return a name for CloudFormation and Docker: letters, digits and hyphens."""
    try:
        name = read_metadata(model).name
    except (MetadataError, OSError):
        return FALLBACK
    if name == RELEASE[0]:
        return RELEASE[1]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    slug = slug if re.match(r"[a-z]", slug) else f"model-{slug}"
    return slug[:MAX_LENGTH].rstrip("-")


if __name__ == "__main__":
    print(default_name(Path(sys.argv[1]) if sys.argv[1:] else SHIPPED_MODEL))
