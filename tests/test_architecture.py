"""Imports point one way: one rule per folder, no cycle, and no side effects on import."""

from __future__ import annotations

import ast
import graphlib
import json
from pathlib import Path

import pytest

from lambda_function import REPOSITORY
from tests.conftest import encode_image
from tests.support.processes import run_python
from tools.gateway import http_event
from tools.image_server import Resource

# Folder -> the folders that it may import. A folder below another one has its own rule.
MAY_IMPORT = {
    "lambda_function/batches": {"lambda_function", "lambda_function/fetching"},
    # A request names URLs, and the length that a URL may have is fetching's rule.
    "lambda_function/http": {"lambda_function", "lambda_function/fetching"},
    "lambda_function/fetching": {"lambda_function"},
    "lambda_function/images": {"lambda_function"},
    "lambda_function": {
        *("lambda_function/batches", "lambda_function/http", "lambda_function/fetching"),
        "lambda_function/images",
    },
    "training/data": {"training", "lambda_function", "lambda_function/images"},
    "training/fit": {"training", "training/data", "training/evaluation", "lambda_function"},
    "training/evaluation": {
        *("training", "training/data", "lambda_function", "lambda_function/images"),
    },
    "training/experiments": {
        *("training", "training/data", "training/fit", "training/evaluation", "lambda_function"),
    },
    "training": {
        *("training/data", "training/fit", "training/evaluation", "training/experiments"),
        "lambda_function",
    },
    "converter/sources": {
        *("converter", "training", "training/fit", "training/data", "lambda_function"),
    },
    "converter": {
        *("converter/sources", "training", "training/data", "training/fit", "training/evaluation"),
        *("lambda_function", "lambda_function/images", "lambda_function/fetching"),
    },
    "deploy/image": {"lambda_function"},
    "deploy/side": {"deploy", "lambda_function"},
    "deploy": {
        *("deploy/image", "lambda_function", "lambda_function/http", "lambda_function/fetching"),
    },
    "tools": {
        *("lambda_function", "lambda_function/http", "lambda_function/fetching"),
        "lambda_function/images",
    },
    "benchmarks": {
        *("benchmarks/baselines", "benchmarks/masking", "benchmarks/report", "converter", "deploy"),
        *("lambda_function", "lambda_function/images", "tools", "training", "training/data"),
        *("training/evaluation", "training/fit"),
    },
    "benchmarks/baselines": {
        *("benchmarks", "benchmarks/masking", "lambda_function", "lambda_function/images", "tools"),
        "training",
    },
    "benchmarks/masking": {"lambda_function"},
    "benchmarks/no_garment": {
        *("benchmarks", "benchmarks/baselines", "converter/sources", "lambda_function"),
        *("lambda_function/images", "training", "training/data"),
    },
    "benchmarks/report": {
        *("benchmarks", "benchmarks/baselines", "benchmarks/masking", "converter"),
        *("lambda_function", "training", "training/evaluation"),
    },
}
PACKAGES = {folder.partition("/")[0] for folder in MAY_IMPORT}
SERVING = sorted((REPOSITORY / "lambda_function").rglob("*.py"))
OURS = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
FORBIDDEN_IN_SERVING = {"tensorflow", "keras", "tf_keras", "tensorboard", "sklearn", "matplotlib"}
# A library belongs to few files. Elsewhere its import shows that something is in the wrong place.
KEEPERS = {
    "PIL": {"images/decode.py"},
    "pi_heif": {"images/decode.py"},
    "keras_image_helper": {"images/decode.py"},
    "ai_edge_litert": {"classifier.py"},
    "tflite_runtime": {"classifier.py"},
}
MAX_MODULES = 12  # of one folder, side by side


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def imported_names(source: str, *, package: str) -> set[str]:
    """Return the dotted names of everything that a source imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split("/")[: len(package.split("/")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def libraries_of(path: Path) -> set[str]:
    names = imported_names(path.read_text(), package=name_of(path.parent))
    return {name.partition(".")[0] for name in names}


def files_imported_by(path: Path) -> set[str]:
    """Return which of our files a file imports."""
    files = set()
    for name in imported_names(path.read_text(), package=name_of(path.parent)):
        parts = name.split(".")
        for end in (len(parts), len(parts) - 1):  # a module, or a name that is taken from one
            stem = REPOSITORY.joinpath(*parts[:end])
            found = [f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()]
            if found and end:
                files.add(name_of(found[0]))
                break
    return files


IMPORTS = {name_of(path): files_imported_by(path) for path in OURS}


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def folders_imported_by(folder: str) -> set[str]:
    files = (found for file, found in IMPORTS.items() if Path(file).parent.as_posix() == folder)
    found = {Path(file).parent.as_posix() for imported in files for file in imported}
    return found - {folder}


def test_every_folder_has_a_rule():
    assert {Path(file).parent.as_posix() for file in IMPORTS} == set(MAY_IMPORT)


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_a_folder_imports_only_what_its_rule_allows(folder):
    assert folders_imported_by(folder) <= MAY_IMPORT[folder]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_package_imports_tests(package):
    for path in (REPOSITORY / package).rglob("*.py"):
        assert "tests" not in libraries_of(path), path


def test_no_two_modules_import_each_other():
    assert cycle_in(IMPORTS) == []


def test_no_two_packages_import_each_other():
    graph: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for file, imported in IMPORTS.items():
        package = file.partition("/")[0]
        graph[package] |= {name.partition("/")[0] for name in imported} - {package}

    assert cycle_in(graph) == []


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_no_folder_holds_too_many_modules(folder):
    modules = [path for path in (REPOSITORY / folder).glob("*.py") if path.stem != "__init__"]

    assert len(modules) <= MAX_MODULES


@pytest.mark.parametrize("path", SERVING, ids=name_of)
def test_serving_never_names_a_training_library(path):
    assert libraries_of(path) & FORBIDDEN_IN_SERVING == set()


@pytest.mark.parametrize("library", sorted(KEEPERS))
def test_a_library_stays_in_its_module(library):
    users = {name_of(path) for path in SERVING if library in libraries_of(path)}

    assert users == {f"lambda_function/{keeper}" for keeper in KEEPERS[library]}


def test_only_one_module_opens_images():
    # Training, calibration, evaluation and benchmarks see images through images/decode.py alone.
    # The exception is the parity gate's other side: it must not share the code that it judges.
    openers = {
        name_of(path)
        for path in OURS
        if path.parts[-2] not in ("baselines",)
        and not name_of(path).startswith(("benchmarks", "tools"))
        and ("Image.open(" in path.read_text() or "load_img(" in path.read_text())
    }

    assert openers <= {"converter/reference.py"}


@pytest.mark.parametrize("path", [p for p in OURS if "tqdm" in libraries_of(p)], ids=name_of)
def test_a_progress_bar_can_see_that_there_is_no_terminal(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    bars = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "tqdm"]

    assert bars
    for bar in bars:  # tqdm writes to a file too, unless disable is None
        (disable,) = [word.value for word in bar.keywords if word.arg == "disable"]
        assert ast.unparse(disable).endswith("None")


# Each module is imported as if it were the first of ours. Libraries stay loaded, to save time.
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
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = run_python("-c", code, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def dotted(path: Path) -> str:
    return name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@pytest.fixture(scope="module")
def probed() -> dict[str, dict]:
    return run_probe([dotted(path) for path in SERVING])


@pytest.mark.parametrize("path", SERVING, ids=name_of)
def test_importing_a_serving_module_has_no_side_effects(path, probed):
    found = probed[dotted(path)]

    assert found["did"] == []  # no model read, no connection, no process
    assert found["threads"] == 1
    assert not FORBIDDEN_IN_SERVING & set(found["loaded"])


# What a first, ordinary request never needs. Each costs a cold start up to tens of milliseconds.
RARE = {
    "PIL.ImageCms",  # images with a colour profile
    "PIL.PngImagePlugin",  # another format than the image's
    *("PIL.WebPImagePlugin", "PIL.AvifImagePlugin", "pi_heif"),
    "PIL.TiffImagePlugin",  # PIL's way to EXIF, and MPO's
    "asyncio",
    "boto3",  # s3:// addresses
    *("botocore", "pydantic", "requests", "urllib3"),
    "concurrent.futures",  # batches
    *("lambda_function.http.form", "lambda_function.fetching.s3", "multiprocessing", "unittest"),
}
FIRST_REQUEST = """
import json, sys
from lambda_function import app
from lambda_function.fetching import sockets

event = json.loads(sys.argv[1])
response = app.lambda_handler(event, None)
print(json.dumps({
    "status": response["statusCode"],
    "loaded": sorted(sys.modules),
    "tls_contexts": sockets.default_tls_context.cache_info().currsize,
}))
"""


def test_a_first_request_loads_only_what_it_needs(server):
    url = server.url("/red.jpg")
    server.resources["/red.jpg"] = Resource(encode_image("red", kind="JPEG"))
    event = http_event("POST", "/predict", json_body={"url": url})
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "TRUSTED_IMAGE_HOSTS": server.host}

    done = run_python("-c", FIRST_REQUEST, json.dumps(event), env=environment)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])  # the lines before it are the log
    assert found["status"] == 200
    assert set(found["loaded"]) & RARE == set()
    assert found["tls_contexts"] == 0  # making one reads every certificate authority
