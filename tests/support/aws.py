"""An AWS account without AWS: invented credentials, and moto's server on loopback."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def invent_account(monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    """Give boto3 an invented account, and nothing of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**ACCOUNT, **changed}.items():
        monkeypatch.setenv(name, value)


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Run moto's server and give its address."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
