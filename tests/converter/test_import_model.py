"""What a model shows is found out, what is missing is asked for, and the gate decides."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from converter import import_model
from converter.errors import ConversionError, SourceError
from converter.import_model import (
    Findings,
    accuracy_in_words,
    kind_of_output,
    look_at,
    main,
    read_labels,
    read_size,
)
from converter.sources import tflite_file
from converter.sources.keras_file import MAX_FILE_BYTES
from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.metadata import NOT_STATED, read_metadata
from tests.support import converter as support
from tests.support.paths import TESTS
from tests.support.processes import run_python
from training.errors import DatasetError
from training.evaluation.metrics import wilson_interval

TINY = TESTS / "data" / "tiny.tflite"
LABELS = ("--labels", "red,green,blue,dark")
SCALING = ("--normalisation", "tf", "--resize", "nearest")


@pytest.fixture
def plain(tmp_path):
    """A TFLite file as TensorFlow writes it, without metadata. Its outputs are probabilities."""
    path = tmp_path / "colours.tflite"
    path.write_bytes(support.without_metadata(TINY.read_bytes()))
    return path


def words(path, *more) -> list[str]:
    return [str(path), "--output", str(path.with_name("out.tflite")), *map(str, more)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.2, 0.8], [0.999, 0.001]], "probabilities"),
        ([[0.25, 0.738], [0.5, 0.5]], "probabilities"),  # integer softmax
        ([[0.2, 0.8], [3.0, -2.0]], "logits"),
        ([[0.2, 0.9], [2.2, 0.1]], "logits"),
        ([[0.3], [1.0]], "probability_of_second"),
        ([[0.3], [1.7]], "logit_of_second"),
        ([[-0.3], [0.7]], "logit_of_second"),
    ],
)
def test_the_kind_of_output_is_found_out(values, expected):
    assert kind_of_output(np.array(values)) == expected


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        (((299, 200), 3, "logits"), "found: input 299x200, 3 outputs: logits"),
        (
            ((None, None), 1, "probability_of_second"),
            "found: input of any size, 1 output: probability of the second label",
        ),
        (((None, 48), 1, "logit_of_second"), "found: input anyx48, 1 output: logit of the second"),
    ],
)
def test_what_was_found_is_said_in_words(findings, said):
    assert str(Findings(*findings)).startswith(said)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.9, 0.8], [0.1, 0.2]], "one sigmoid for each class"),
        ([[float("nan"), 0.2]], "not all numbers"),
    ],
)
def test_outputs_that_are_no_classification_are_refused(values, message):
    with pytest.raises(SourceError, match=message):
        kind_of_output(np.array(values))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([(1, 8, 8, 1)], [(1, 3)], r"one RGB image.*Received: \[\(1, 8, 8, 1\)\]"),
        ([(1, 8, 8, 3), (1, 4)], [(1, 3)], "one RGB image"),
        ([(1, 8, 8, 3)], [(1, 3), (1, 2)], "one row of numbers"),
        ([(1, 8, 8, 3)], [(1, 4, 4, 3)], "one row of numbers"),
    ],
)
def test_only_a_classifier_of_one_image_is_taken(inputs, outputs, message):
    def tensors(shapes):
        return [tflite_file.Tensor("x", "float32", shape) for shape in shapes]

    with pytest.raises(SourceError, match=message):
        look_at(SimpleNamespace(inputs=tensors(inputs), outputs=tensors(outputs)))


def test_labels_come_from_text_or_from_a_file(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("T-shirt, grün\n\n帽子\n", encoding="utf-8")

    assert read_labels("a, b,c") == ("a", "b", "c")
    assert read_labels(str(file)) == ("T-shirt, grün", "帽子")
    # As Windows and as a Mac write it. Class folders are compared in Unicode's composed form.
    file.write_text("\ufeffgru\u0308n\nrot\n", encoding="utf-8")
    assert read_labels(str(file)) == ("grün", "rot")
    many = tuple(f"class number {number}" for number in range(500))  # too long for a file's name
    assert read_labels(",".join(many)) == many


def test_a_size_is_one_number_or_height_and_width():
    assert read_size("299") == (299, 299)
    assert read_size("32x48") == (32, 48)
    for wrong in ("0", "32x", "x", "-3", "99999", "32*48"):
        with pytest.raises(SourceError, match="SIZE is N or HEIGHTxWIDTH"):
            read_size(wrong)


def test_a_tflite_file_becomes_a_self_describing_artifact(plain, capsys):
    title = ("--title", "Which colour is it?", "--subject", "colour")

    status = main(words(plain, *LABELS, *SCALING, *title))

    assert status == 0
    printed = capsys.readouterr().out
    assert "found: input 32x48, 4 outputs: probabilities\n" in printed
    output = plain.with_name("out.tflite")
    assert support.without_metadata(output.read_bytes()) == plain.read_bytes()
    metadata = read_metadata(output)
    assert (metadata.name, metadata.title) == ("colours", "Which colour is it?")
    assert metadata.licence == metadata.dataset == NOT_STATED
    notes = metadata.conversion["gate"]["notes"]
    assert ["smoke test" in note for note in notes] == [True, False]
    assert "conversion was not checked" in notes[1]
    report = json.loads(output.with_suffix(".parity.json").read_text())
    assert report["passed"] is True
    assert report["notes"] == notes


def test_the_name_of_the_model_is_the_name_of_its_folder(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(import_model, "IMPORTED", tmp_path / "my imports")

    assert main([str(plain), *LABELS, *SCALING, "--name", "my colours/1"]) == 0

    folder = tmp_path / "my imports" / "my-colours-1"
    printed = capsys.readouterr().out
    assert f"'my colours/1' gets the folder {folder}" in printed
    assert printed.endswith(f"Next: make adopt MODEL='{folder}/model.tflite'\n")
    assert sorted(path.name for path in folder.iterdir()) == ["model.parity.json", "model.tflite"]
    assert read_metadata(folder / "model.tflite").name == "my colours/1"


def test_a_folder_that_holds_another_import_is_left_as_it_is(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(import_model, "IMPORTED", tmp_path / "imported")
    written = tmp_path / "imported" / "colours" / "model.tflite"

    assert main([str(plain), *LABELS, *SCALING]) == 0
    assert "gets the folder" not in capsys.readouterr().out
    assert main([str(plain), "--labels", "a,b,c,d", *SCALING]) == 0  # the same file again
    assert read_metadata(written).labels == ("a", "b", "c", "d")

    other = tmp_path / "other" / "colours.tflite"
    other.parent.mkdir()
    other.write_bytes(TINY.read_bytes())
    for content in (written.read_bytes(), b"no artifact"):
        written.write_bytes(content)
        with pytest.raises(SourceError, match=r"another or older colours.tflite.* NAME=.* remove"):
            main([str(other), *LABELS, *SCALING])
        assert written.read_bytes() == content


@pytest.mark.training
def test_a_keras_file_is_imported_again_after_a_wrong_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(import_model, "IMPORTED", tmp_path / "imported")
    path = tmp_path / "colours.keras"
    support.colour_model().save(path)

    for labels in ("red,green,blue", "blue,green,red"):
        assert main([str(path), "--labels", labels, *SCALING]) == 0

    written = tmp_path / "imported" / "colours" / "model.tflite"
    assert read_metadata(written).labels == ("blue", "green", "red")


def test_an_image_that_is_not_served_is_named(plain, tmp_path):
    images = support.write_images(tmp_path / "images", 1)
    (images / "dark").mkdir()
    Image.new("1", (7100, 7100)).save(images / "dark" / "huge.png")  # 50 million pixels are served

    with pytest.raises(DatasetError, match=r"dark/huge\.png cannot be used: .*50,410,000 pixels"):
        main(words(plain, *LABELS, *SCALING, "--dataset", images))

    assert not plain.with_name("out.tflite").exists()


def test_a_users_images_measure_the_accuracy(plain, tmp_path, capsys):
    images = support.write_images(tmp_path / "images", 2)
    names = ("--labels", "red,green,blue,dark")
    (images / "dark").mkdir()
    (images / "red" / "0.png").rename(images / "dark" / "0.png")  # classified red, so one mistake

    assert main(words(plain, *names, *SCALING, "--dataset", images)) == 0

    report = json.loads(plain.with_name("out.parity.json").read_text())
    assert report["images"] == "6 images of images"
    assert report["figures"]["accuracy_served"]["correct"] == 5
    assert "smoke test" not in json.dumps(report)
    assert "not trained on" not in json.dumps(report)  # nobody knows that of an import
    assert read_metadata(plain.with_name("out.tflite")).dataset == NOT_STATED  # nor this
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2] == "5 of 6 of your images are right"
    assert shown[-1].startswith("Next: make adopt")


@pytest.mark.parametrize("suffix", ["tflite", pytest.param("keras", marks=pytest.mark.training)])
def test_an_import_says_how_many_images_are_right(plain, tmp_path, capsys, suffix):
    images = support.write_images(tmp_path / "images", 4)
    path, order = plain, ("red", "green", "blue", "dark")
    if suffix == "keras":
        path, order = tmp_path / "colours.keras", ("blue", "green", "red")
        support.colour_model().save(path)
    else:
        (images / "dark").mkdir()
        for number in range(4):
            Image.new("RGB", (70, 90)).save(images / "dark" / f"{number}.png")
    total = 4 * len(order)
    for labels, said in (
        (order, f"{total} of {total} of your images are right"),
        ((*order[1:], order[0]), f"warning: 0 of {total} images are right, no better than chance."),
    ):
        assert main(words(path, "--labels", ",".join(labels), *SCALING, "--dataset", images)) == 0

        shown = capsys.readouterr().out.splitlines()
        assert shown[-2].startswith(said)
        assert shown[-1].startswith("Next: make adopt")


def test_a_data_set_without_validation_is_judged_by_its_train_images(plain, tmp_path, capsys):
    images = support.write_images(tmp_path / "set" / "train", 2)
    (images / "dark").mkdir()
    Image.new("RGB", (70, 90)).save(images / "dark" / "0.png")
    (tmp_path / "set" / "test" / "red").mkdir(parents=True)
    labels = ("--labels", "red,green,blue,dark")

    assert main(words(plain, *labels, *SCALING, "--dataset", tmp_path / "set")) == 0

    assert "7 of 7 of your images are right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("right", "labels", "said"),
    [
        (72, [0, 1, 2] * 24, "72 of 72 of your images are right"),
        (35, [0] * 80 + [1] * 20, "warning: 35 of 100 images are right, no better than chance. "),
        (85, [0] * 80 + [1] * 20, "warning: 85 of 100 .* not clearly better than chance"),
        (88, [0] * 80 + [1] * 20, "88 of 100 of your images are right"),  # from 0.802 on
    ],
)
def test_the_largest_class_is_what_chance_gets_right(right, labels, said):
    served = {"correct": right, "interval_95": wilson_interval(right, len(labels))}

    told = accuracy_in_words(served, np.array(labels))

    assert re.match(said, told)
    assert ("the order of LABELS, then NORMALISATION and RESIZE" in told) == ("warning" in told)


def test_everything_that_is_missing_is_asked_for_at_once(plain):
    with pytest.raises(SourceError) as caught:
        main(words(plain, "--resize", "bicubic"))

    missing = str(caught.value).splitlines()
    assert missing[1].startswith("  LABELS are the class names in the order of the outputs, as a,b")
    assert missing[2].startswith("  NORMALISATION is what training did to pixels, one of xception")
    assert missing[-1] == (
        f"  make import MODEL={plain} LABELS=a,b,c NORMALISATION=xception RESIZE=bicubic"
    )
    assert len(missing) == 5
    assert not plain.with_name("out.tflite").exists()


@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        (("--labels", "a,b,c", *SCALING), SourceError, "LABELS must be 4 names.*Received: 3"),
        (("--labels", "a,b,c,c", *SCALING), SourceError, "^LABELS names c twice$"),
        (
            ("--labels", "nolabels.txt", *SCALING),
            SourceError,
            "^there is no file nolabels.txt that can be read$",
        ),
        (("--labels", "my/labels", *SCALING), SourceError, "^there is no file my/labels that"),
        (("--labels", str(TINY), *SCALING), SourceError, "tiny.tflite must be text in UTF-8"),
        ((*LABELS, *SCALING, "--size", "48x32"), SourceError, "SIZE must be the model's 32x48"),
        (
            (*LABELS, "--normalisation", "imagenet", "--resize", "nearest"),
            SourceError,
            "^NORMALISATION must be one of xception, .*0..255. Received: 'imagenet'$",
        ),
        (
            (*LABELS, "--normalisation", "tf", "--resize", "area"),
            SourceError,
            "^RESIZE must be one of nearest, bilinear, bicubic, lanczos. Received: 'area'$",
        ),
        ((*LABELS, *SCALING, "--dataset", "/nowhere"), DatasetError, "/nowhere"),
        (
            (*LABELS, *SCALING, "--output", "/nowhere/a.bin"),
            ConversionError,
            r"Received: /nowhere/a\.bin",
        ),
        (
            (*LABELS, *SCALING, "--output", SHIPPED_MODEL),
            ConversionError,
            "^only make adopt replaces .*lambda_function/model.tflite",
        ),
        (
            ("--recipe", "float32"),
            SourceError,
            "colours.tflite is a.* so --recipe would have no effect",
        ),
        (
            ("--recipe", "int8", "--uncertain", "--activation-map"),
            SourceError,
            "--recipe, --activation-map, --uncertain would have no effect.*Import the .keras or",
        ),
    ],
)
def test_a_wrong_answer_gets_one_sentence(plain, more, kind, message):
    with pytest.raises(kind, match=message):
        main(words(plain, *more))
    assert not plain.with_name("out.tflite").exists()


def test_flex_operators_are_named(tmp_path):
    path = tmp_path / "flex.tflite"
    artifact = support.with_custom_operator(TINY.read_bytes(), "FlexErf")
    path.write_bytes(support.without_metadata(artifact))

    with pytest.raises(SourceError, match=r"TensorFlow's operators FlexErf.*TFLITE_BUILTINS only"):
        main(words(path, *LABELS, *SCALING))


@pytest.mark.parametrize("limit", ["MAX_OPERATORS", "MAX_TENSOR_BYTES"])
def test_a_graph_that_asks_for_too_much_is_refused(plain, monkeypatch, limit):
    monkeypatch.setattr(tflite_file, limit, 2)

    with pytest.raises(SourceError, match=r"operators and .* bytes of tensors\. At most"):
        main(words(plain, *LABELS, *SCALING))


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "large.tflite"
    with path.open("wb") as file:
        file.write(b"\0\0\0\0TFL3")
        file.truncate(MAX_FILE_BYTES + 1)

    with pytest.raises(SourceError, match=r"has 500,000,001 bytes\. At most"):
        main(words(path, *LABELS, *SCALING))


def test_an_artifact_is_imported_without_its_old_description(plain):
    artifact = plain.with_name("artifact.tflite")
    artifact.write_bytes(TINY.read_bytes())

    assert main(words(artifact, "--labels", "a,b,c,d", *SCALING)) == 0

    output = plain.with_name("out.tflite")
    assert support.without_metadata(output.read_bytes()) == plain.read_bytes()
    assert read_metadata(output).labels == ("a", "b", "c", "d")


def test_integer_input_is_refused(plain):
    plain.write_bytes(support.with_input_type(plain.read_bytes(), "UINT8"))

    with pytest.raises(SourceError, match="of uint8"):
        main(words(plain, *LABELS, *SCALING))


def test_importing_a_tflite_file_needs_no_tensorflow(plain):
    code = (
        "import sys; from converter.__main__ import main; status = main(sys.argv[1:]); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules); sys.exit(status)"
    )

    done = run_python("-c", code, "import", *words(plain, *LABELS, *SCALING))

    assert done.returncode == 0, done.stderr
    assert Classifier(plain.with_name("out.tflite")).metadata.recipe == "imported"


@pytest.mark.training
def test_a_model_of_any_size_asks_for_one(tmp_path, capsys):
    import keras

    path = tmp_path / "any.keras"
    layers = [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]
    keras.Sequential([*layers, keras.layers.Dense(2)]).save(path)
    labels = ("--labels", "a,b")

    with pytest.raises(SourceError, match=r"(?s)\n  SIZE is N or .* in pixels\n.* SIZE=299 "):
        main(words(path, *labels, *SCALING))
    assert "found: input of any size, 2 outputs: logits" in capsys.readouterr().out
    assert main(words(path, *labels, *SCALING, "--size", "20x30")) == 0
    assert read_metadata(path.with_name("out.tflite")).input.height == 20


@pytest.mark.training
def test_a_calibrated_recipe_asks_for_images(tmp_path):
    path = tmp_path / "model.keras"
    support.colour_model().save(path)
    labels = ("--labels", "blue,green,red")
    recipe = ("--recipe", "int8_float_head")

    with pytest.raises(SourceError, match="int8_float_head needs images to calibrate with"):
        main(words(path, *labels, *SCALING, *recipe))

    dataset = support.write_dataset(tmp_path / "dataset")
    assert main(words(path, *labels, *SCALING, *recipe, "--dataset", dataset)) == 0
    assert read_metadata(path.with_name("out.tflite")).recipe == "int8_float_head"
