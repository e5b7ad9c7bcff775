"""Load a Keras file of unknown origin without running anything that it brings along.

A model file is code. It names classes to build, and may hold Python code itself. So the
description is read as JSON first, and every class in it must be one of Keras's own layers,
operations, initializers, regularizers, constraints or precision policies. Only a cleaned copy,
without training configuration, reaches Keras, and Keras loads it in its safe mode. There is no
switch. Weights are read from HDF5, which can refer to other files: every link and data set is
checked too.
"""

from __future__ import annotations

import functools
import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from converter.errors import SourceError

MAX_FILE_BYTES = 500_000_000  # EfficientNetV2L, the largest of Keras's image networks, has 476 MB
MAX_OBJECTS = 50_000  # described classes, or HDF5 objects. EfficientNetV2L has 1,000 layers.
MEMBERS = frozenset({"metadata.json", "config.json", "model.weights.h5"})
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# They run code, or read files, that the model file names.
REFUSED = frozenset(
    {
        "Lambda",
        "TFSMLayer",
        "TorchModuleWrapper",
        "JaxLayer",
        "FlaxLayer",
        "StringLookup",
        "IntegerLookup",
        "TextVectorization",
    }
)
# Values that Keras's JSON wraps in a class of its own.
WRAPPED_VALUES = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
)
# Arguments that Keras 2 wrote for these layers and Keras 3 does not know.
KERAS_2_ARGUMENTS = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
}
MODELS = frozenset({"Functional", "Model", "Sequential"})
SAVE_AGAIN = "Load it where it was made and save it again with model.save('model.keras')."


def load_keras(path: Path) -> Any:
    """Return the Keras model of a ``.keras`` or ``.h5`` file.

    Args:
        path: of the file. Its content decides the format, not its name.

    Raises:
        SourceError: too large, no Keras model, or one that needs code of its own.
    """
    if path.is_dir():
        raise SourceError(f"{path} is a folder. A SavedModel is not read here. {SAVE_AGAIN}")
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    check_size(path)
    with path.open("rb") as file:
        is_hdf5 = file.read(8) == HDF5_SIGNATURE
    if not is_hdf5 and not zipfile.is_zipfile(path):
        raise SourceError(f"{path} is neither a .keras, .h5 nor .tflite file")
    with tempfile.TemporaryDirectory() as folder:
        try:
            copy = _clean_hdf5(path, Path(folder)) if is_hdf5 else _clean_zip(path, Path(folder))
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
            raise SourceError(f"{path} is damaged: {_first_line(error)}") from error
        return _load(copy, path)


def check_size(path: Path) -> None:
    """Check that a model file is not too large.

    Raises:
        SourceError: it has more than ``MAX_FILE_BYTES``.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise SourceError(f"{path} has {size:,} bytes. At most {MAX_FILE_BYTES:,} are read.")


def _load(copy: Path, original: Path) -> Any:
    import keras

    try:
        return keras.models.load_model(copy, compile=False, safe_mode=True)
    except Exception as error:  # Keras and h5py raise many kinds
        raise SourceError(
            f"Keras {keras.__version__} cannot load {original}: {_first_line(error)}"
        ) from error


def _clean_zip(path: Path, folder: Path) -> Path:
    """Check a ``.keras`` archive and write a copy without training configuration."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info.file_size for info in archive.infolist()}
        if extra := sorted(set(members) - MEMBERS):
            raise SourceError(f"{path} holds more than a model: {', '.join(extra)}. {SAVE_AGAIN}")
        if sum(members.values()) > MAX_FILE_BYTES:
            raise SourceError(
                f"{path} unpacks to {sum(members.values()):,} bytes. At most {MAX_FILE_BYTES:,} "
                "are read."
            )
        described = json.loads(archive.read("metadata.json"))
        if str(described.get("keras_version", "")).startswith(("1.", "2.")):
            raise SourceError(
                f"{path} is a .keras file of Keras {described['keras_version']}, which Keras 3 "
                "cannot read. Load it where it was made and save it with model.save('model.h5')."
            )
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
        metadata = archive.read("metadata.json")
    _check_hdf5(io.BytesIO(weights), path)
    check_config(config, path)
    copy = folder / "model.keras"
    with zipfile.ZipFile(copy, "w") as archive:
        archive.writestr("metadata.json", metadata)
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return copy


def _clean_hdf5(path: Path, folder: Path) -> Path:
    """Check a ``.h5`` file and write a copy without training configuration."""
    import h5py

    content = path.read_bytes()
    _check_hdf5(io.BytesIO(content), path)
    copy = folder / "model.h5"
    copy.write_bytes(content)
    with h5py.File(copy, "r+") as file:
        if "model_config" not in file.attrs:
            raise SourceError(f"{path} holds weights without the model. {SAVE_AGAIN}")
        config = json.loads(file.attrs["model_config"])
        check_config(config, path)
        _renumber_nodes(config)
        file.attrs["model_config"] = json.dumps(config).encode()
        for name in ("training_config", "optimizer_config"):
            if name in file.attrs:
                del file.attrs[name]
        if "optimizer_weights" in file:
            del file["optimizer_weights"]
    return copy


def _check_hdf5(content: io.BytesIO, path: Path) -> None:
    """Check that an HDF5 file holds all its data itself, and not too much of it.

    Raises:
        SourceError: it refers to another file, or claims too many objects or bytes.
    """
    import h5py

    with h5py.File(content, "r") as file:
        waiting: list[Any] = [file]
        objects, size = 0, 0
        while waiting:
            group = waiting.pop()
            for name in group:
                objects += 1
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise SourceError(f"{path} links to other data as {group.name}/{name}")
                item = group[name]
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif item.external or item.is_virtual:
                    raise SourceError(f"{path} keeps {item.name} in another file")
                else:
                    size += int(item.nbytes)
                if objects > MAX_OBJECTS or size > MAX_FILE_BYTES:
                    raise SourceError(
                        f"{path} claims {objects:,} objects and {size:,} bytes of weights. "
                        f"At most {MAX_OBJECTS:,} and {MAX_FILE_BYTES:,} are read."
                    )


def check_config(config: Any, path: Path) -> None:
    """Check every class that a model's JSON names, and drop what only training needs.

    Args:
        config: changed in place.
        path: of the file, for the message.

    Raises:
        SourceError: a class or function is not Keras's own, or runs code of the file.
    """
    waiting, objects = [config], 0
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            node.pop("compile_config", None)
            if isinstance(node.get("class_name"), str):
                objects += 1
                _check_class(node, path)
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
        if objects > MAX_OBJECTS:
            raise SourceError(f"{path} describes more than {MAX_OBJECTS:,} layers and operations")


def _check_class(node: dict[str, Any], path: Path) -> None:
    name, module = node["class_name"], node.get("module") or ""
    if name in WRAPPED_VALUES:
        return
    if name in REFUSED or name == "__lambda__":
        kind = "Lambda" if name == "__lambda__" else name
        raise SourceError(
            f"{path} has a layer of the class {kind}, which runs code of the file. Replace it by "
            f"Keras's own layers, or leave it out if it only scales pixels. {SAVE_AGAIN}"
        )
    if name == "function":
        name = str(node.get("config"))
        known = name in _activations() and (module == "builtins" or _is_of_keras(module))
    elif module.startswith("keras.src.ops."):
        known = _is_operation(module, name)
    else:
        known = name in _classes() and (not module or _is_of_keras(module))
    if not known and not module and (name.endswith("OpLambda") or name in _operations()):
        raise SourceError(
            f"{path} computes {node.get('name') or name} outside of a layer, which Keras 3 cannot "
            "read from a .h5 file. Use a layer for it, such as Rescaling, and save the model again."
        )
    if not known:
        raise SourceError(
            f"{path} needs {f'{module}.{name}' if module else name}, which is not part of Keras. "
            "Code from elsewhere is not loaded. Build the model from Keras's own layers, and "
            "save it again."
        )
    for argument in KERAS_2_ARGUMENTS.get(name, ()):
        if isinstance(node.get("config"), dict):
            node["config"].pop(argument, None)


def _renumber_nodes(model: Any) -> None:
    """Count the calls of nested models from 0, as Keras 3 does. Keras 2 counted from 1.

    Keras 2 writes a call's inputs as lists of layer, call, tensor and arguments. Keras 3 writes
    objects, which are left alone.
    """
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(layers, list):
        return
    nested = {layer.get("name") for layer in layers if layer.get("class_name") in MODELS}
    for layer in layers:
        _renumber_nodes(layer)
        for call in layer.get("inbound_nodes") or []:
            for source in call if isinstance(call, list) else []:
                if isinstance(source, list) and len(source) > 2 and source[0] in nested:
                    source[1] = max(0, source[1] - 1)


def _is_of_keras(module: str) -> bool:
    return module.partition(".")[0] == "keras"


def _is_operation(module: str, name: str) -> bool:
    import keras

    found = getattr(sys.modules.get(module), name, None)  # looked up, never imported
    return isinstance(found, type) and issubclass(found, keras.Operation)


@functools.cache
def _classes() -> frozenset[str]:
    import keras

    homes = (
        keras.layers,
        keras.initializers,
        keras.regularizers,
        keras.constraints,
        keras.dtype_policies,
    )
    names = {name for home in homes for name, item in vars(home).items() if isinstance(item, type)}
    return frozenset(names | MODELS)


@functools.cache
def _operations() -> frozenset[str]:
    import keras

    modules = [item for name, item in sys.modules.items() if name.startswith("keras.src.ops.")]
    return frozenset(
        name
        for module in modules
        for name, item in vars(module).items()
        if isinstance(item, type) and issubclass(item, keras.Operation)
    )


@functools.cache
def _activations() -> frozenset[str]:
    import keras

    return frozenset(name for name, item in vars(keras.activations).items() if callable(item))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
