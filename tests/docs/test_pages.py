"""The documentation names only what exists: commands, parameters, settings, files and links."""

from __future__ import annotations

import re

import pytest

from lambda_function import REPOSITORY, errors
from lambda_function.batches import bulk
from lambda_function.settings import VARIABLES
from tests.support import makefile
from tests.support.template import load

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text()
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "MODEL_CARD.md",
        *sorted((REPOSITORY / "docs").glob("*.md")),
    )
}
# A page of results of deleted code names commands that only a tag still has.
HISTORY = {"docs/experiments.md"}
TEMPLATES = [load(f"{name}.yaml") for name in ("template", "deploy/bulk", "deploy/events")]
PARAMETERS = {name for template in TEMPLATES for name in template["Parameters"]}
RESOURCES = {name for template in TEMPLATES for name in template["Resources"]}
OUTPUTS = {name for template in TEMPLATES for name in template["Outputs"]}


def links(page: str) -> list[str]:
    return re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page])


def slugs(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        file = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert file.exists(), link
        assert not anchor or anchor in slugs(file.read_text()), link


@pytest.mark.parametrize("page", sorted(PAGES.keys() - HISTORY))
def test_every_make_target_exists(page: str) -> None:
    named = re.findall(r"(?:^|`|&& )make ([a-z][a-z0-9-]+)", PAGES[page], re.MULTILINE)
    assert set(named) <= makefile.targets()


@pytest.mark.parametrize("page", sorted(PAGES.keys() - HISTORY))
def test_every_module_that_is_run_exists(page: str) -> None:
    for module in re.findall(r"python -m ([a-z_][a-z_.]+)", PAGES[page]):
        base = REPOSITORY.joinpath(*module.split("."))
        if base.parts[len(REPOSITORY.parts)] in ("venv", "pip", "pytest"):
            continue
        found = base.with_suffix(".py").is_file() or (base / "__main__.py").is_file()
        assert found, module


@pytest.mark.parametrize("page", sorted(PAGES.keys() - HISTORY))
def test_every_file_that_is_named_exists(page: str) -> None:
    folders = "lambda_function|training|converter|deploy|tools|benchmarks|tests|requirements|docs"
    named = re.findall(rf"`((?:{folders})/[\w./-]+\.\w+)`", PAGES[page])
    missing = [name for name in named if not (REPOSITORY / name).exists()]

    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_parameter_that_is_set_exists(page: str) -> None:
    given = re.findall(r"PARAMS='([^']+)'", PAGES[page])
    named = {word.partition("=")[0] for words in given for word in words.split() if "=" in word}

    assert named <= PARAMETERS


@pytest.mark.parametrize("page", PAGES)
def test_every_output_and_alarm_that_is_named_exists(page: str) -> None:
    outputs = re.findall(r"output `(\w+)`", PAGES[page])
    alarms = re.findall(r"`(\w+Alarm)`", PAGES[page])

    assert set(outputs) <= OUTPUTS
    assert set(alarms) <= RESOURCES


@pytest.mark.parametrize("page", PAGES)
def test_every_error_code_exists(page: str) -> None:
    codes = {error.code for error in vars(errors).values() if hasattr(error, "code")}
    shown = re.findall(r"(?:[45][0-9][0-9]) `([a-z_]+)`", PAGES[page])
    batch_errors = re.findall(r"`(\w+BatchError)`", PAGES[page])

    assert set(shown) <= codes
    assert set(batch_errors) <= set(dir(bulk))


def test_every_setting_is_documented() -> None:
    assert all(f"`{variable.name}`" in PAGES["docs/settings.md"] for variable in VARIABLES)


def test_the_ten_minute_path_is_one_screen() -> None:
    lines = PAGES["docs/deploy.md"].splitlines()
    assert len(lines) <= 35
    assert max(map(len, lines)) <= 130
