"""The OpenAPI document of the server, for the model that it serves."""

from __future__ import annotations

import math
from typing import Any

from kinglet import __version__
from kinglet.serving.open_inference import DATATYPE
from kinglet.serving.problems import Problem, problem_of
from kinglet.serving.refusals import STATUS_OF
from kinglet.serving.served_model import ServedModel
from kinglet.serving.settings import Settings

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
# What any path may answer: what is no HTTP, wrong methods, headers without end, and a server with too much to do.
ALWAYS = (400, 405, 408, 431, 500, 503)


def openapi_document(model: ServedModel, settings: Settings) -> dict[str, Any]:
    """Return the document as JSON-ready values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Kinglet: {model.name}",
            "version": __version__,
            "description": f"{problem_of(model).does(model.predictor.classes)}; model version {model.version}.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**own_paths(model, settings), **protocol_paths(model)},
        "components": {"schemas": schemas(model)},
    }


def own_paths(model: ServedModel, settings: Settings) -> dict[str, Any]:
    """Return the paths that are Kinglet's."""
    binary = {"type": "string", "format": "binary", "minLength": 1, "maxLength": settings.max_body_bytes}
    files = {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}, "minProperties": 1}
    problem = problem_of(model)
    content: dict[str, Any] = {kind: {"schema": binary} for kind in (*problem.media_types, *IMAGE_TYPES)}
    content["multipart/form-data"] = {"schema": files}
    taken = (
        f"the clips of a video, or of one clip whose frames are the images of a multipart body in order. At most "
        f"{settings.max_frames:,} frames, "
        if problem.of_clips
        else f"one image, or of up to {settings.max_images} in a multipart body. At most "
    )
    predict = operation(
        "predict",
        f"The {problem.answers} of {taken}{settings.max_body_bytes:,} bytes and {settings.max_pixels:,} pixels each.",
        answers(problem),
        (413, 415, 422, *((501,) if problem.of_clips else ())),
    )
    predict["requestBody"] = {"required": True, "content": content}
    predict["parameters"] = problem.parameters()
    text = {"description": "As text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    page = {"description": "As HTML.", "content": {"text/html": {"schema": {"type": "string"}}}}
    return {
        "/predict": {"post": predict},
        "/": {"get": operation("page", "A page on which to drop an image.", page)},
        "/healthz": {"get": operation("healthz", "Whether the process is alive.", json_content("Live", "Alive."))},
        "/metrics": {"get": operation("metrics", "What Prometheus reads.", text)},
        "/openapi.json": {"get": operation("openapi", "This document.", json_content("Document", "The document."))},
    }


def answers(problem: Problem) -> dict[str, Any]:
    """Return the good answer of /predict: JSON, and the picture of a problem that has one."""
    response = json_content("Predictions", f"The {problem.answers}, {problem.order}.")
    if problem.picture is not None:
        response["content"][problem.picture.media_type] = {"schema": {"type": "string", "format": "binary"}}
    return response


def protocol_paths(model: ServedModel) -> dict[str, Any]:
    """Return the paths of the Open Inference Protocol."""
    infer = operation(
        "infer",
        f"{' and '.join(problem_of(model).shapes(model)).capitalize()} of tensors. With the header "
        "Inference-Header-Content-Length, raw bytes follow the JSON (the binary tensor data extension).",
        {
            "description": "The tensors that were asked for.",
            "content": {
                "application/json": {"schema": reference("InferResponse")},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        (404, 413, 415),
    )
    infer["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": reference("InferRequest")}},
    }
    ready = operation("ready", "Whether requests are welcome.", json_content("Ready", "They are."))
    paths: dict[str, Any] = {
        "/v2": {"get": operation("server", "Who serves.", json_content("ServerMetadata", "The server."))},
        "/v2/health/live": {"get": operation("live", "Whether the process is alive.", json_content("Live", "Alive."))},
        "/v2/health/ready": {"get": ready},
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": [model.name]}}
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "enum": [model.version]}}
    for suffix, prefix, parameters in (
        ("", "/v2/models/{name}", [name]),
        ("_of_version", "/v2/models/{name}/versions/{version}", [name, version]),
    ):
        metadata = operation("model", "What the model takes.", json_content("ModelMetadata", "The model."), (404,))
        model_ready = operation("model_ready", "Whether the model is ready.", json_content("Ready", "It is."), (404,))
        for path, method, entry in (
            (prefix, "get", metadata),
            (f"{prefix}/ready", "get", model_ready),
            (f"{prefix}/infer", "post", infer),
        ):
            named = {**entry, "operationId": entry["operationId"] + suffix, "parameters": parameters}
            paths[path] = {method: named}
    return paths


def operation(name: str, words: str, answer: dict[str, Any], statuses: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return one operation: its good answer, and the errors it may give besides those of all."""
    responses: dict[str, Any] = {"200": answer}
    for status in sorted({*ALWAYS, *statuses}):
        codes = sorted(code for code, its in STATUS_OF.items() if its == status)
        response = json_content("Error", f"Refused: {', '.join(codes)}.")
        if status == 503:
            seconds = {"type": "integer", "minimum": 1}
            response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": seconds}}
        responses[str(status)] = response
    return {"operationId": name, "summary": words, "responses": responses}


def json_content(schema: str, words: str) -> dict[str, Any]:
    """Return a response of JSON."""
    return {"description": words, "content": {"application/json": {"schema": reference(schema)}}}


def reference(schema: str) -> dict[str, str]:
    """Return a reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{schema}"}


def schemas(model: ServedModel) -> dict[str, Any]:
    """Return the shapes of what is sent and answered."""
    shape = {"type": "array", "items": {"type": "integer", "minimum": 1}}
    milliseconds = {"type": "number", "minimum": 0}
    image = fields({"name": TEXT, "format": TEXT, "width": COUNT, "height": COUNT})
    prediction = fields({**problem_of(model).prediction_schema(model), "image": image})
    prediction["properties"] |= problem_of(model).optional_schema(model)
    names = list(problem_of(model).shapes(model))
    tensor = fields({"name": {"enum": names}, "datatype": {"const": DATATYPE}, "shape": shape})
    tensor["properties"]["data"] = {"type": "array", "items": {"type": "number"}}
    tensor["properties"]["parameters"] = {"type": "object"}
    metadata_tensor = fields({"name": TEXT, "datatype": TEXT, "shape": {"type": "array", "items": {"type": "integer"}}})
    return {
        "Error": fields({"error": TEXT, "code": {"enum": sorted(STATUS_OF)}, "request_id": TEXT}),
        "Live": fields({"live": {"const": True}}),
        "Ready": fields({"ready": {"const": True}, "name": TEXT, "version": TEXT}),
        "Document": {"type": "object", "required": ["openapi", "paths"]},
        "ServerMetadata": fields({"name": TEXT, "version": TEXT, "extensions": {"type": "array", "items": TEXT}}),
        "ModelMetadata": fields(
            {
                "name": TEXT,
                "versions": {"type": "array", "items": TEXT},
                "platform": TEXT,
                "inputs": {"type": "array", "items": metadata_tensor},
                "outputs": {"type": "array", "items": metadata_tensor},
                "parameters": {"type": "object"},
            }
        ),
        "Predictions": fields(
            {
                "model": TEXT,
                "version": TEXT,
                "predictions": {"type": "array", "items": prediction},
                "time_ms": fields({"decode": milliseconds, "compute": milliseconds, "total": milliseconds}),
            }
        ),
        "InferRequest": infer_request(model),
        "InferResponse": {
            **fields({"model_name": TEXT, "model_version": TEXT, "outputs": {"type": "array", "items": tensor}}),
        },
    }


def infer_request(model: ServedModel) -> dict[str, Any]:
    """Return the shape of a request of the Open Inference Protocol without raw bytes."""
    takes = model.input_format
    n_numbers = math.prod(takes.shape)
    number = (
        {"type": "integer", "minimum": 0, "maximum": 255}
        if takes.datatype == "UINT8"
        else {"type": "number", "minimum": -1000, "maximum": 1000}
    )
    inputs = {
        "name": {"const": "images"},
        "datatype": {"const": takes.datatype},
        "shape": {
            "type": "array",
            "prefixItems": [{"const": edge} for edge in (1, *takes.shape)],
            "minItems": 4,
            "maxItems": 4,
        },
        "data": {
            "type": "array",
            "items": number,
            "minItems": n_numbers,
            "maxItems": n_numbers,
        },
    }
    asked = fields({"name": {"enum": list(problem_of(model).shapes(model))}})
    request = fields({"inputs": {"type": "array", "items": fields(inputs), "minItems": 1, "maxItems": 1}})
    request["properties"]["id"] = TEXT
    request["properties"]["outputs"] = {"type": "array", "items": asked}
    request["description"] = (
        f"One tensor of shape [n, {', '.join(map(str, takes.shape))}], here with n = 1, its numbers flat or nested."
    )
    return request


TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 1}


def fields(properties: dict[str, Any]) -> dict[str, Any]:
    """Return an object whose fields are all there."""
    return {"type": "object", "properties": dict(properties), "required": list(properties)}
