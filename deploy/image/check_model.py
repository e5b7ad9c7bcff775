"""Stop the image build if the model cannot be served: `python check_model.py MODEL`.

It opens the artifact with the code that will serve it, and says in one sentence what is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lambda_function.classifier import ArtifactError, Classifier
from lambda_function.metadata import MetadataError


def check_model(path: Path) -> str:
    """Return one line that describes the model.

    Raises:
        SystemExit: the file is missing or cannot be served. Carries one sentence.
    """
    if not path.is_file():
        raise SystemExit(
            f"There is no model at {path.name}. `git checkout -- lambda_function/{path.name}` "
            "brings back the released one. `make adopt MODEL=...` puts yours there."
        )
    try:
        metadata = Classifier(path).metadata
    except (ArtifactError, MetadataError, OSError) as error:
        raise SystemExit(f"The model cannot be served: {error}") from error
    size = f"{metadata.input.height}x{metadata.input.width}"
    return (
        f"model {metadata.name} {metadata.version}: {len(metadata.labels)} classes, {size} pixels, "
        f"{metadata.recipe}, {path.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    print(check_model(Path(sys.argv[1])))
