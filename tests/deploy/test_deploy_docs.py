"""docs/deploy.md and docs/troubleshooting.md name nothing that is not there."""

from __future__ import annotations

import re

import pytest

from lambda_function import errors
from lambda_function.settings import VARIABLES
from tests.support.template import REPOSITORY, load

PAGES = {
    name: (REPOSITORY / "docs" / name).read_text() for name in ("deploy.md", "troubleshooting.md")
}
PARAMETERS = set(load("template.yaml")["Parameters"]) | set(load("deploy/bulk.yaml")["Parameters"])
RESOURCES = set(load("template.yaml")["Resources"])
OUTPUTS = set(load("template.yaml")["Outputs"]) | set(load("deploy/bulk.yaml")["Outputs"])
# Words of AWS, SAM and Docker in the same spelling.
OTHERS = {
    "Duration",
    "Errors",
    "ReservedConcurrentExecutions",
    "MemorySize",
    "DockerBuildTarget",
    "TypeError",
    "ServerError",
    "ColdStart",
    "AutoPublishAlias",
    "AutoPublishAliasAllProperties",
    "DeploymentPreference",
    "SnapStart",
    "SlowDown",
    "WriterConfig",
    "OutputType",
    "CompiledModel",
    "GetObject",
    "CHROMIUM",
}


@pytest.mark.parametrize("page", PAGES)
class TestPage:
    def test_every_make_target_exists(self, page: str) -> None:
        makefile = (REPOSITORY / "Makefile").read_text()
        for target in re.findall(r"\bmake ([a-z][a-z-]+)", PAGES[page]):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

    def test_every_name_in_camel_case_is_a_parameter_resource_or_output(self, page: str) -> None:
        names = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)(?:=[^`]*)?`", PAGES[page]))
        from lambda_function import bulk

        known = PARAMETERS | RESOURCES | OUTPUTS | OTHERS | set(dir(bulk))
        assert names and names <= known, names - known

    def test_every_given_parameter_exists(self, page: str) -> None:
        given = re.findall(r"PARAMS='([^']+)'", PAGES[page])
        named = {word.partition("=")[0] for words in given for word in words.split()}
        assert named <= PARAMETERS

    def test_every_link_within_the_repository_leads_somewhere(self, page: str) -> None:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
            path, _, anchor = target.partition("#")
            text = (REPOSITORY / "docs" / path).read_text() if path else PAGES[page]
            headings = [h.lower() for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
            slugs = {re.sub(r"[^a-z0-9 -]", "", heading).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, target

    def test_every_setting_and_error_code_exists(self, page: str) -> None:
        variables = {variable.name for variable in VARIABLES}
        build = {"BASE_IMAGE", "REQUIREMENTS", "BOTO3", "ARCH", "PARAMS", "STACK", "MS", "URL"}
        other = {"BUILDX_NO_DEFAULT_ATTESTATIONS", "ROLLBACK_COMPLETE", "KERAS_BACKEND"}
        other |= {"AWS_DEFAULT_REGION", "AWS_LAMBDA_FUNCTION_TIMEOUT"}
        upper = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`", PAGES[page]))
        assert upper <= variables | build | other, upper - variables - build - other
        codes = {e.code for e in vars(errors).values() if hasattr(e, "code")}
        shown = set(re.findall(r"(?:[45][0-9][0-9]) `([a-z_]+)`", PAGES[page]))
        assert shown <= codes


# --- troubleshooting ------------------------------------------------------------------------


def rows() -> list[list[str]]:
    """The cells of every table row of troubleshooting.md, headings left out."""
    lines = [line for line in PAGES["troubleshooting.md"].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "symptom" and set(row[0]) - set("-| ")]


def test_every_trap_has_symptom_cause_and_cure() -> None:
    assert len(rows()) > 80
    for row in rows():
        assert len(row) == 3 and all(row), row


# What cost this project time to find out, each by a word that its row cannot do without.
TRAPS = """
    4.5 MB|30 s|init has 10 s|SnapStart|AutoPublishAlias|AutoPublishAliasAllProperties|live"
    AWS::NoValue|128 MB|Wikimedia|HTML|bit.ly|float32|Missing Authentication Token|Not Found
    413|429|503|504|CorsOrigins|rawPath|WAF|binaryMediaTypes|64:ff9b::|6to4
    errorType|plain text|first invoke|UnmarshalError|overlapping|limits are not enforced|--help
    click and boto3|AWS_DEFAULT_REGION|unknown routes are 403|decodes bodies as text|is 200
    CREATE_COMPLETE|serverless-offline|uv.lock|2.4|backports-strenum
    Flex|tf.lite.Interpreter|tflite-runtime|one thread|resize_tensor_input|weight cache
    0.0.2|in place|NEAREST|keras.distribution|read once|tf.data|forked|mixed_float16|JAX
    Playwright|--no-sandbox|256 KiB|five minutes|folder/|TooManyRequests|WriterConfig
    momentum|initial values|augmenting generator|contributors|2.34|2.26|attestation
"""


@pytest.mark.parametrize(
    "trap", [t.strip() for t in TRAPS.replace("\n", "|").split("|") if t.strip()]
)
def test_every_known_trap_is_told(trap: str) -> None:
    assert any(trap in " ".join(row) for row in rows())
