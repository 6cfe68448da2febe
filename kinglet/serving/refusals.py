"""What the server does not do, said as a status and one JSON object."""

from __future__ import annotations

# Every answer that is no answer, by its code: the HTTP status, and what it means (docs/serving.md, /openapi.json).
STATUS_OF = {
    "bad_request": 400,
    "empty_body": 400,
    "bad_multipart": 400,
    "bad_json": 400,
    "bad_tensor": 400,
    "not_found": 404,
    "unknown_model": 404,
    "method_not_allowed": 405,
    "slow_body": 408,
    "body_too_large": 413,
    "too_many_images": 413,
    "image_too_large": 413,
    "too_many_frames": 413,
    "unsupported_type": 415,
    "undecodable_image": 422,
    "undecodable_video": 422,
    "headers_too_large": 431,
    "internal_error": 500,
    "no_video_decoder": 501,
    "busy": 503,
    "too_slow": 503,
    "not_ready": 503,
}


class RefusedError(Exception):
    """A request that is answered with an error.

    code: a key of `STATUS_OF`. message: one sentence that says what and where. retry_after: seconds after which it is
    worth another try, None if it never is. closes: whether the connection cannot be used again, as when a body
    was not read to its end.
    """

    def __init__(self, code: str, message: str, *, retry_after: int | None = None, closes: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS_OF[code]
        self.message = message
        self.retry_after = retry_after
        self.closes = closes
