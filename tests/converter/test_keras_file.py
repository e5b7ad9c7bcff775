"""Files of Keras 2 and 3 are read, and files that bring code or refer to others are refused."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converter.errors import SourceError
from converter.sources import keras_file
from converter.sources.keras_file import MAX_FILE_BYTES, check_config, load_keras
from tests.support.paths import TESTS

pytestmark = pytest.mark.training

KERAS_2 = TESTS / "data" / "keras2.h5"  # see tests/support/make_keras2_model.py
FORMATS = ("keras", "h5")


def small_model(*extra):
    """Return a model of 8x8 images and three classes, with layers put before the last one."""
    import keras

    layers = keras.layers
    images = keras.Input((8, 8, 3))
    tensor = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(images))
    for layer in extra:
        tensor = layer(tensor)
    return keras.Model(images, layers.Dense(3)(tensor))


def save(model, path: Path) -> Path:
    model.save(path)
    return path


def edit_config(path: Path, change) -> Path:
    """Change the model's JSON inside a file."""
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config).encode()
        return path
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def conv_of(config):
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2D")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_saved_model_predicts_as_before(tmp_path, kind):
    model = small_model()
    model.compile("adam", "mse")  # training configuration is dropped, not read
    images = np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 8, 8, 3)

    loaded = load_keras(save(model, tmp_path / f"model.{kind}"))

    expected = model.predict_on_batch(images)
    np.testing.assert_allclose(loaded.predict_on_batch(images), expected, atol=1e-6)


def test_a_keras_2_file_predicts_as_keras_2_did():
    images = np.linspace(-1, 1, 32 * 24 * 3, dtype=np.float32).reshape(1, 32, 24, 3)

    found = load_keras(KERAS_2).predict_on_batch(images)

    # printed by tf_keras 2.20, see make_keras2_model.py
    np.testing.assert_allclose(found, [[0.00431716, -0.00846049, 0.0395791]], atol=1e-6)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_lambda_layer_is_refused_and_not_run(tmp_path, kind):
    import keras

    marker = tmp_path / "marker"
    code = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    layer = keras.layers.Lambda(eval(code))  # noqa: S307
    path = save(small_model(layer), tmp_path / f"model.{kind}")
    marker.unlink()  # building the model ran it

    with pytest.raises(SourceError, match="class Lambda, which runs code of the file"):
        load_keras(path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("evil", "Conv2D"),  # a class of that name elsewhere
        ("evil", "Evil"),
        ("os", "system"),
        ("keras.utils", "get_file"),
        ("keras.src.saving.saving_api", "load_model"),
        ("keras.src.ops.numpy", "np"),
        ("keras.layers", "TFSMLayer"),
        ("keras.layers", "TorchModuleWrapper"),
        (None, "Evil"),
    ],
)
def test_a_foreign_class_is_refused_and_its_module_not_imported(
    tmp_path, monkeypatch, kind, module, name
):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = save(small_model(), tmp_path / f"model.{kind}")
    edit_config(path, lambda config: conv_of(config).update(module=module, class_name=name))

    with pytest.raises(SourceError, match=f"{name}, which (is not part of Keras|runs code)"):
        load_keras(path)
    assert "evil" not in sys.modules


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "hidden",
    [
        {"class_name": "__lambda__", "config": {"value": "4wEAAA=="}},
        {"class_name": "function", "config": "system", "module": "os", "registered_name": "x"},
        {"class_name": "function", "config": "popen", "module": "builtins"},
        {"class_name": "__typespec__", "config": [], "spec_name": "x", "module": "os"},
    ],
)
def test_code_in_an_argument_is_refused(tmp_path, kind, hidden):
    path = save(small_model(), tmp_path / f"model.{kind}")
    edit_config(path, lambda config: conv_of(config)["config"].update(activation=hidden))

    with pytest.raises(SourceError, match=r"runs code of the file|not part of Keras"):
        load_keras(path)


def external_link(file, folder):
    import h5py

    file["other"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")


def soft_link(file, folder):
    import h5py

    file["other"] = h5py.SoftLink("/model_weights")


def external_data(file, folder):
    file.create_dataset("other", (4,), "f4", external=[(str(folder / "secret.bin"), 0, 16)])


def virtual_data(file, folder):
    import h5py

    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", (4,))
    file.create_virtual_dataset("other", layout)


def endless_data(file, folder):
    file.create_dataset("other", (2**30,), "f4", chunks=(2**20,))  # 4 GB in a few bytes


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (external_link, "links to other data"),
        (soft_link, "links to other data"),
        (external_data, "in another file"),
        (virtual_data, "in another file"),
        (endless_data, "claims .* bytes of weights"),
    ],
)
def test_weights_that_refer_elsewhere_are_refused(tmp_path, kind, attack, message):
    import h5py

    path = save(small_model(), tmp_path / f"model.{kind}")
    weights = path
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "parts")
        weights = tmp_path / "parts" / "model.weights.h5"
    with h5py.File(weights, "r+") as file:
        attack(file, tmp_path)
    if kind == "keras":
        shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "parts")
        (tmp_path / "model.zip").replace(path)

    with pytest.raises(SourceError, match=message):
        load_keras(path)


def test_an_archive_with_further_files_is_refused(tmp_path):
    path = save(small_model(), tmp_path / "model.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/vocabulary.txt", "x")

    with pytest.raises(SourceError, match=r"more than a model: assets/vocabulary\.txt"):
        load_keras(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "model.h5"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)

    with pytest.raises(SourceError, match=r"has 500,000,001 bytes\. At most"):
        load_keras(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1_000_000))
    monkeypatch.setattr(keras_file, "MAX_FILE_BYTES", 100_000)

    with pytest.raises(SourceError, match=r"unpacks to 1,000,000 bytes\. At most 100,000"):
        load_keras(path)


def test_the_number_of_objects_is_bounded(tmp_path, monkeypatch):
    path = save(small_model(), tmp_path / "model.h5")
    monkeypatch.setattr(keras_file, "MAX_OBJECTS", 2)

    with pytest.raises(SourceError, match="claims 3 objects"):
        load_keras(path)
    with pytest.raises(SourceError, match="describes more than 2 layers"):
        check_config([{"class_name": "Dense"}] * 3, path)


@pytest.mark.parametrize("kind", FORMATS)
def test_keras_own_safe_mode_is_on_behind_the_checks(tmp_path, kind):
    import keras

    layer = keras.layers.Lambda(lambda x: x)
    path = save(small_model(layer), tmp_path / f"model.{kind}")

    with pytest.raises(SourceError, match=r"Keras 3\..* cannot load .*model"):
        keras_file._load(path, path)


def saved_model(folder: Path) -> Path:
    (folder / "saved").mkdir()
    return folder / "saved"


def weights_only(folder: Path) -> Path:
    path = folder / "model.weights.h5"
    small_model().save_weights(path)
    return path


def of_keras_2(folder: Path) -> Path:
    path = save(small_model(), folder / "model.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] = b'{"keras_version": "2.15.0"}'
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def operation_in_hdf5(folder: Path) -> Path:
    import keras

    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Flatten()(images / 127.5))
    return save(model, folder / "model.h5")


def cut(folder: Path) -> Path:
    path = save(small_model(), folder / "model.h5")
    path.write_bytes(path.read_bytes()[:3000])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (saved_model, "is a folder. A SavedModel is not read here"),
        (weights_only, r"holds weights without the model\. .*model\.save\('model\.keras'\)"),
        (of_keras_2, r"of Keras 2\.15\.0, .*model\.save\('model\.h5'\)"),
        (operation_in_hdf5, "outside of a layer, which Keras 3 cannot read from a .h5 file"),
        (cut, "is damaged"),
        (lambda folder: folder / "nowhere.h5", "there is no file"),
        (lambda folder: Path(__file__), "neither a .keras, .h5 nor .tflite file"),
    ],
)
def test_a_file_that_cannot_be_read_gets_one_sentence(tmp_path, make, message):
    with pytest.raises(SourceError, match=message) as caught:
        load_keras(make(tmp_path))
    assert "\n" not in str(caught.value)
