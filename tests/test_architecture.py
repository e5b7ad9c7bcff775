"""The arrows between our modules, and what importing the deployed ones may not do."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator import EXAMPLE, http_event
from tests.support_server import Resource

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lambda_function", "training", "converter", "deploy", "benchmarks", "tests", "tools")
SERVING = sorted((ROOT / "lambda_function").glob("*.py"))
FORBIDDEN_IN_SERVING = {"tensorflow", "keras", "tf_keras", "tensorboard", "sklearn", "matplotlib"}
TRAINING_MAY_USE = {
    "lambda_function.image",
    "lambda_function.metadata",
    "lambda_function.classifier",
    "lambda_function.errors",
}
# Inside serving: who may touch what. `app` and the modules that it is cut into are the edge;
# the pure middle knows neither requests nor the network.
PURE = {
    "errors": set(),
    "metadata": {"errors"},
    "container": {"errors"},
    "image": {"container", "errors", "metadata"},
    "classifier": {"errors", "metadata"},
}
# A library belongs to few files; elsewhere its import shows that something is in the wrong place.
KEEPERS = {
    "PIL": {"image"},
    "keras_image_helper": {"image"},
    "ai_edge_litert": {"classifier"},
    "tflite_runtime": {"classifier"},
}


def imports(path: Path) -> set[str]:
    """Return the dotted names of everything that a file imports, wherever in it."""
    return imports_of(path.read_text(), package=path.relative_to(ROOT).parent.as_posix())


def imports_of(source: str, *, package: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split("/")[: len(package.split("/")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names.add(base)
            # `from lambda_function import image` names a module too.
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] in PACKAGES}


def modules_of(names: set[str], package: str) -> set[str]:
    """Return which modules of a package are named, without what is taken from them."""
    files = {path.stem for path in (ROOT / package).glob("*.py")}
    parts = (name.split(".") for name in names)
    return {part[1] for part in parts if part[0] == package and len(part) > 1 and part[1] in files}


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_imports_are_found_wherever_they_stand():
    source = """
import numpy as np, os.path
from lambda_function import image
from . import errors
from .metadata import InputSpec
def late():
    import boto3
"""
    assert imports_of(source, package="lambda_function") >= {
        "numpy",
        "os.path",
        "lambda_function.image",
        "lambda_function.errors",
        "lambda_function.metadata",
        "boto3",
    }


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.stem)
def test_serving_imports_nothing_else_of_ours(path):
    foreign = {name for name in ours(imports(path)) if not name.startswith("lambda_function")}

    assert foreign == set()


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.stem)
def test_serving_never_names_a_training_library(path):
    assert {name.partition(".")[0] for name in imports(path)} & FORBIDDEN_IN_SERVING == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_pure_middle_knows_no_requests_and_no_network(name):
    path = ROOT / "lambda_function" / f"{name}.py"

    used = modules_of(imports(path), "lambda_function")

    assert used <= PURE[name], f"{name}.py imports {sorted(used - PURE[name])}"
    network = {"socket", "http", "ssl", "urllib", "urllib3", "boto3", "botocore", "os"}
    assert {found.partition(".")[0] for found in imports(path)} & network == set()


@pytest.mark.parametrize("library", sorted(KEEPERS))
def test_a_library_stays_in_its_module(library):
    users = {
        path.stem
        for path in SERVING
        if library in {name.partition(".")[0] for name in imports(path)}
    }

    assert users == KEEPERS[library]


@pytest.mark.parametrize("path", python_files("training"), ids=lambda path: path.stem)
def test_training_uses_only_the_shared_middle_of_serving(path):
    used = modules_of(imports(path), "lambda_function")

    assert {f"lambda_function.{name}" for name in used} <= TRAINING_MAY_USE
    assert not any(name.startswith("converter") for name in ours(imports(path)))


@pytest.mark.parametrize("path", python_files("converter"), ids=lambda path: path.stem)
def test_converter_uses_only_the_shared_middle_of_serving(path):
    used = modules_of(imports(path), "lambda_function")

    assert {f"lambda_function.{name}" for name in used} <= TRAINING_MAY_USE


def test_only_one_module_opens_images():
    # Training, calibration, evaluation and benchmarks see pictures through image.py alone. The
    # exception is the parity gate's other side: it must not share the code that it judges.
    openers = [
        path.relative_to(ROOT).as_posix()
        for package in ("lambda_function", "training", "converter")
        for path in python_files(package)
        if "Image.open(" in path.read_text() or "load_img(" in path.read_text()
    ]

    assert set(openers) <= {"converter/reference.py"}


# Each module is imported as if it were the first of ours; libraries stay loaded, to save time.
PROBE = """
import importlib, json, sys, threading

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked in this test")

def watch(event, args):
    files = event == "open" and str(args[0]).endswith(".tflite")
    if files or event in ("socket.connect", "socket.bind", "subprocess.Popen"):
        did.append(event)

sys.meta_path.insert(0, Blocked())
sys.addaudithook(watch)
found = {{}}
for module in {modules!r}:
    for name in [name for name in sys.modules if name.startswith("lambda_function")]:
        del sys.modules[name]
    did = []
    importlib.import_module(module)
    found[module] = {{
        "did": did,
        "threads": threading.active_count(),
        "loaded": sorted({{name.partition(".")[0] for name in sys.modules}}),
    }}
print(json.dumps(found))
"""


def run_probe(modules: list[str]) -> dict[str, dict]:
    """Import modules in a bare interpreter, with training libraries blocked."""
    code = PROBE.format(blocked=FORBIDDEN_IN_SERVING, modules=modules)
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


def dotted(path: Path) -> str:
    return f"lambda_function.{path.stem}".removesuffix(".__init__")


@pytest.fixture(scope="module")
def probed() -> dict[str, dict]:
    return run_probe([dotted(path) for path in SERVING])


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.stem)
def test_importing_a_serving_module_has_no_side_effects(path, probed):
    found = probed[dotted(path)]

    assert found["did"] == []  # no model read, no connection, no process
    assert found["threads"] == 1
    assert not FORBIDDEN_IN_SERVING & set(found["loaded"])


def test_importing_the_handler_leaves_what_is_rare_for_later():
    loaded = set(run_probe(["lambda_function.app"])["lambda_function.app"]["loaded"])

    assert not loaded & {"boto3", "botocore", "pydantic", "requests"}


# What a first, ordinary answer never needs; each costs a cold start up to tens of milliseconds.
RARE = {
    "PIL.ImageCms",  # pictures with a colour profile
    "PIL.PngImagePlugin",  # another format than the picture's
    "PIL.WebPImagePlugin",
    "PIL.AvifImagePlugin",
    "PIL.TiffImagePlugin",  # PIL's way to EXIF, and MPO's
    "asyncio",
    "boto3",  # s3:// addresses
    "botocore",
    "concurrent.futures",  # batches
    "lambda_function.form",
    "lambda_function.s3",
    "multiprocessing",
    "unittest",
}
FIRST_ANSWER = """
import json, sys
from lambda_function import app, fetch

event = json.loads(sys.argv[1])
answer = app.lambda_handler(event, None)
print(json.dumps({
    "status": answer["statusCode"],
    "loaded": sorted(sys.modules),
    "tls_contexts": fetch._default_tls_context.cache_info().currsize,
}))
"""


def test_a_first_answer_loads_nothing_that_it_does_not_need(server):
    url = server.url("/trousers.jpg")
    server.resources["/trousers.jpg"] = Resource(EXAMPLE.read_bytes())
    event = http_event("POST", "/predict", json_body={"url": url})

    answer = subprocess.run(
        [sys.executable, "-c", FIRST_ANSWER, json.dumps(event)],
        cwd=ROOT,
        env={"PYTHONDONTWRITEBYTECODE": "1", "TRUSTED_IMAGE_HOSTS": server.host},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])  # the lines before it are the log
    assert found["status"] == 200
    assert set(found["loaded"]) & RARE == set()
    assert found["tls_contexts"] == 0  # making one reads every certificate authority


def test_the_probe_sees_what_it_forbids():
    with pytest.raises(AssertionError, match="keras is blocked"):
        run_probe(["keras"])
