"""Writes lambda_function/http/openapi.json and docs.html: `python -m tools.openapi`.

Both come from the code that serves: paths and methods from ``app.ROUTES``, limits from
``payload``, error codes and titles from ``errors``. A test keeps the committed files equal to
what this writes, and checks real responses against the schemas.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from lambda_function import app, errors
from lambda_function.http import pages
from lambda_function.http import request_body as payload

FOLDER = Path(pages.__file__).parent
JSON_FILE = FOLDER / "openapi.json"
HTML_FILE = FOLDER / "docs.html"
DIALECT = "https://spec.openapis.org/oas/3.1/dialect/base"
API_VERSION = "1.0.0"  # of this interface, not of the model: GET /model has that
EXAMPLE_URL = "https://example.com/image.jpg"
# What API Gateway answers before the function is asked, in words of its own.
GATEWAY_ANSWERS = {
    401: "no valid token (ApiAuth=jwt)",
    403: "no valid signature, or a caller who may not (ApiAuth=iam, jwt)",
    429: "more requests a second than ThrottleRate",
    503: "more requests at once than Lambda runs, or 30 seconds without an answer",
}
_TIMES = ("fetch", "decode", "preprocess", "inference")


def service_errors() -> list[type[errors.ServiceError]]:
    """Return every error that a caller may see, by status and code."""
    found: list[type[errors.ServiceError]] = []
    waiting = [*errors.ServiceError.__subclasses__()]
    while waiting:
        error = waiting.pop()
        if error.__module__ == errors.__name__:  # others are a member's own kinds
            found.append(error)
        waiting += error.__subclasses__()
    return sorted(found, key=lambda error: (error.status, error.code))


def build_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document.

    Raises:
        ValueError: the routes and the operations described here are not the same.
    """
    described = {(path, method) for path, method in _operations()}
    served = {(path, method) for path, methods in app.ROUTES.items() for method in methods}
    if described != served:
        raise ValueError(f"described and served routes differ: {sorted(described ^ served)}")
    paths: dict[str, Any] = {}
    for (path, method), operation in _operations().items():
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "{{name}}",
            "version": API_VERSION,
            "description": "{{title}} Send the URL of an image, or the image.",
            "license": {"name": "{{licence}}"},
        },
        "servers": [{"url": ".", "description": "where this document was found"}],
        "security": [{}, {"jwt": []}, {"iam": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": _responses() | _gateway_responses(),
            "securitySchemes": _security_schemes(),
        },
    }


def _operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        ("/predict", "POST"): {
            "operationId": "predict",
            "summary": f"Classify one image, or up to {payload.MAX_IMAGES} by their addresses or "
            "in a form: one result or one error each, in order",
            "parameters": [_top_k_parameter()],
            "requestBody": {"required": True, "content": _request_bodies()},
            "responses": {
                "200": _ok(
                    "PredictionOrBatch",
                    "A prediction. A batch for `urls` and for a form with several images.",
                ),
                **_problems(400, 413, 415, 422, 500, 502, 504),
            },
        },
        ("/predict", "GET"): {
            "operationId": "predictByUrl",
            "summary": "Classify the image at an address",
            "parameters": [
                {
                    "name": "url",
                    "in": "query",
                    "required": True,
                    "description": "Percent-encoded, its own `&` included.",
                    "schema": {"$ref": "#/components/schemas/ImageUrl"},
                },
                _top_k_parameter(),
            ],
            "responses": {
                "200": _ok("Prediction", "A prediction."),
                **_problems(400, 413, 415, 422, 500, 502, 504),
            },
        },
        ("/health", "GET"): {
            "operationId": "health",
            "summary": "Run the model once",
            "responses": {"200": _ok("Health", "It answers."), **_problems(500)},
        },
        ("/model", "GET"): {
            "operationId": "describeModel",
            "summary": "What the model says about itself: labels, input, metrics, training",
            "responses": {"200": _ok("Model", "The artifact's metadata."), **_problems(500)},
        },
        ("/openapi.json", "GET"): {
            "operationId": "openapi",
            "summary": "This document",
            "security": [],
            "responses": {
                "200": {
                    "description": "OpenAPI 3.1.",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
            },
        },
        ("/docs", "GET"): _page("docs", "This interface as a page to read"),
        ("/", "GET"): _page("demo", "The demo page"),
    }


def _page(name: str, summary: str) -> dict[str, Any]:
    content = {"text/html": {"schema": {"type": "string"}}}
    response = {"description": "An HTML page.", "content": content}
    return {
        "operationId": name,
        "summary": summary,
        "security": [],  # open, whoever may predict
        "responses": {"200": response},
    }


def _top_k_parameter() -> dict[str, Any]:
    return {
        "name": "top_k",
        "in": "query",
        "required": False,
        "description": "Answer with the best classes only, 1 to all; omitted means all.",
        "schema": {"type": "integer", "minimum": 1},
    }


def _request_bodies() -> dict[str, Any]:
    image = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    return {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/PredictRequest"},
            "examples": {
                "address": {"value": {"url": EXAMPLE_URL, "top_k": 3}},
                "batch": {"value": {"urls": [EXAMPLE_URL, "https://example.com/hat.png"]}},
            },
        },
        "image/*": image,
        "application/octet-stream": image,
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/PredictForm"}},
    }


def _ok(schema: str, description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _problems(*statuses: int) -> dict[str, Any]:
    own = {str(s): {"$ref": f"#/components/responses/Problem{s}"} for s in statuses}
    gateway = {str(s): {"$ref": f"#/components/responses/Gateway{s}"} for s in GATEWAY_ANSWERS}
    return own | gateway


def _gateway_responses() -> dict[str, Any]:
    message = _object({"message": {"type": "string"}})
    content = {"application/json": {"schema": message | {"additionalProperties": True}}}
    return {
        f"Gateway{status}": {"description": f"The gateway's own: {text}.", "content": content}
        for status, text in GATEWAY_ANSWERS.items()
    }


def _security_schemes() -> dict[str, Any]:
    return {
        "jwt": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Where the service is deployed with ApiAuth=jwt.",
        },
        "iam": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "x-amazon-apigateway-authtype": "awsSigv4",
            "description": "AWS Signature Version 4, where it is deployed with ApiAuth=iam.",
        },
    }


def _responses() -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[str, Any] = {}
    listed = {status for operation in _operations().values() for status in operation["responses"]}
    for status in sorted(
        {error.status for error in service_errors() if str(error.status) in listed}
    ):
        known = [error for error in service_errors() if error.status == status]
        text = "; ".join(f"{error.title} (`{error.code}`)" for error in known) + "."
        responses[f"Problem{status}"] = {"description": text, "content": content}
    return responses


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    top_k = {"top_k": {"type": "integer", "minimum": 1, "description": "1 to all classes"}}
    predictions = {
        "type": "array",
        "minItems": 1,
        "items": _ref("Score"),
        "description": "Best first. Over all classes the scores sum to 1.",
    }
    uncertain = {"uncertain": {"const": True, "description": "The best score is below MIN_SCORE."}}
    base64_text = {"type": "string", "contentEncoding": "base64", "description": "The image."}
    files = {
        "type": "array",
        "minItems": 2,
        "maxItems": payload.MAX_IMAGES,
        "items": {"type": "string", "format": "binary"},
        "description": "Several parts of this name.",
    }
    urls = {
        "type": "array",
        "minItems": 1,
        "maxItems": payload.MAX_IMAGES,
        "items": _ref("ImageUrl"),
    }
    shared = {"model": _ref("ModelName"), "request_id": _ref("RequestId")}
    problem = _problem_properties()
    return {
        "ImageUrl": {
            "type": "string",
            "minLength": 1,
            "description": "http or https, public, port 80 or 443; s3:// where callers are "
            "authorised.",
            "examples": [EXAMPLE_URL],
        },
        "PredictRequest": {
            "oneOf": [
                _object({"url": _ref("ImageUrl")}, top_k),
                _object({"urls": urls}, top_k),
                _object({"image": base64_text}, top_k),
            ]
        },
        "PredictForm": {
            "oneOf": [
                _object({"image": {"type": "string", "format": "binary"}}, top_k),
                _object({"image": files}, top_k),
                _object({"url": _ref("ImageUrl")}, top_k),
            ]
        },
        "Score": _object(
            {
                "label": {"type": "string", "examples": ["{{first_label}}"]},
                "score": {"type": "number", "minimum": 0, "maximum": 1},
            }
        ),
        "ModelName": _object({"name": {"type": "string"}, "version": {"type": "string"}}),
        "RequestId": {"type": "string", "description": "To quote when something went wrong."},
        "Timings": _milliseconds(*_TIMES, "total"),
        "ItemTimings": _milliseconds(*_TIMES),
        "Prediction": _object(
            {"predictions": predictions, "timings_ms": _ref("Timings"), **shared}, uncertain
        ),
        "BatchItem": {
            "oneOf": [
                _object({"predictions": predictions, "timings_ms": _ref("ItemTimings")}, uncertain),
                _object({"error": _object(problem)}),
            ]
        },
        "Batch": _object(
            {
                "results": {
                    "type": "array",
                    "description": "One per image, in order.",
                    "items": _ref("BatchItem"),
                },
                "timings_ms": _milliseconds("total"),
                **shared,
            }
        ),
        "PredictionOrBatch": {"oneOf": [_ref("Prediction"), _ref("Batch")]},
        "Health": _object(
            {
                "status": {"const": "ok"},
                "timings_ms": _milliseconds("inference", "total"),
                **shared,
            }
        ),
        "Model": _model(),
        "Problem": {
            **_object({**problem, "request_id": _ref("RequestId")}),
            "description": "RFC 9457 problem details.",
        },
    }


def _milliseconds(*names: str) -> dict[str, Any]:
    return _object({name: {"type": "number", "minimum": 0} for name in names})


def _problem_properties() -> dict[str, Any]:
    codes = [error.code for error in service_errors()]
    return {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "enum": sorted({e.status for e in service_errors()})},
        "detail": {"type": "string", "description": "What was wrong and what to do."},
        "code": {"type": "string", "enum": codes, "description": "Stable; for programs."},
    }


def _model() -> dict[str, Any]:
    size = {"type": "integer", "minimum": 1}
    text = {"type": "string"}
    spec = {"height": size, "width": size, "resize_filter": text, "normalisation": text}
    return {
        "type": "object",
        "description": "Further properties are measurements and configuration.",
        "properties": {
            "name": text,
            "version": text,
            "labels": {"type": "array", "items": text, "minItems": 2},
            "input": _object(spec),
            "recipe": text,
            "dataset": text,
            "licence": text,
            "metrics": {"type": "object"},
        },
        "required": ["name", "version", "labels", "input", "recipe", "dataset", "licence"],
    }


_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
code, pre { font: .88em/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre { background: var(--soft); padding: .8rem 1rem; border-radius: 8px; overflow-x: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line); }
tr:target { background: var(--soft); }
"""
_CURL = """curl -sS "$API/predict" -H 'Content-Type: application/json' -d '{"url": "%(url)s"}'
curl -sS "$API/predict" -H 'Content-Type: image/jpeg' --data-binary @image.jpg
curl -sS "$API/predict?top_k=3" -F image=@image.jpg -F image=@other.png
curl -sS "$API/predict" -H 'Content-Type: application/json' -d '{"urls": ["%(url)s"]}'
curl -sS -G "$API/predict" --data-urlencode url=%(url)s"""
EXAMPLE_ANSWER = """{
  "predictions": [
    {"label": "{{first_label}}", "score": 0.9812346},
    {"label": "{{second_label}}", "score": 0.0101442}
  ],
  "model": {"name": "{{name}}", "version": "{{version}}"},
  "timings_ms": {"fetch": 84.2, "decode": 3.1, "preprocess": 1.9, "inference": 241.7,
                 "total": 331.4},
  "request_id": "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
}"""


def build_page(document: dict[str, Any]) -> str:
    """Return the document as a page to read: one file, no script, nothing from elsewhere."""
    routes = "".join(
        f"<tr><td><code>{method.upper()} {path}</code></td>"
        f"<td>{_text(operation['summary'])}.</td></tr>\n"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    problems = "".join(
        f'<tr id="{error.code}"><td>{error.status}</td><td><code>{error.code}</code></td>'
        f"<td>{_text(error.__doc__ or '')}</td></tr>\n"
        for error in service_errors()
    )
    info = document["info"]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(info["title"])}: API</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<h1>{_text(info["title"])}</h1>
<p>{_text(info["description"])} For programs: <a href="openapi.json">openapi.json</a>
(OpenAPI 3.1).</p>
<h2>Routes</h2>
<div class="wide"><table>
<thead><tr><th>Route</th><th>Does</th></tr></thead>
<tbody>
{routes}</tbody></table></div>
<h2>Ask</h2>
<pre>{_text(_CURL % {"url": EXAMPLE_URL})}</pre>
<p><code>top_k</code> limits the answer to the best classes; without it all are there. Lambda takes
requests of 6 MB, so an image sent along may have about 4.5 MB; at an address it may be larger.</p>
<h2>Answer</h2>
<pre>{_text(EXAMPLE_ANSWER)}</pre>
<p>Scores are probabilities, best first, and sum to 1 over all classes.
<code>"uncertain": true</code> is added where the deployment sets a lowest score and the best is
below it. For <code>urls</code>, and for a form with several images, the answer has
<code>results</code> in order: each is a prediction or has an <code>error</code>.</p>
<h2>Errors</h2>
<p>As <code>application/problem+json</code> (RFC 9457) with <code>type</code>, <code>title</code>,
<code>status</code>, <code>detail</code>, <code>code</code> and <code>request_id</code>. The gateway
in front has errors of its own (413, 429, 503, 504), with a <code>message</code> only.</p>
<div class="wide"><table>
<thead><tr><th>Status</th><th>Code</th><th>Meaning</th></tr></thead>
<tbody>
{problems}</tbody></table></div>
</body>
</html>
"""


def _text(text: str) -> str:
    return html.escape(text.strip(), quote=False)


def render_json(document: dict[str, Any]) -> str:
    """Return the document as the committed file's text."""
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    """Write both files."""
    document = build_document()
    JSON_FILE.write_text(render_json(document), encoding="utf-8")
    HTML_FILE.write_text(build_page(document), encoding="utf-8")
    print(f"wrote {JSON_FILE.name} and {HTML_FILE.name}")


if __name__ == "__main__":
    main()
