"""Where the tests' own files are."""

from lambda_function import REPOSITORY

TESTS = REPOSITORY / "tests"
