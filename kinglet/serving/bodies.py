"""Bodies of requests: read within limits, and taken apart where they hold several images."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from kinglet.serving.messages import Request
from kinglet.serving.refusals import RefusedError

# Who sends too much still reads the answer, if it is not far too much: it is taken off the line and dropped.
DROPPED_BYTES, DROPPED_SECONDS = 64_000_000, 2.0
# Headers of one part of a multipart body.
MAX_PART_HEADERS = 20


class DisconnectedError(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


@dataclass(frozen=True)
class Upload:
    """An encoded image as it was sent. name: its file name in a multipart body, "" for a body of one image."""

    name: str
    content: bytes


class BodyReader:
    """Reads bodies; knows how many bytes of them are held in the server at this moment."""

    def __init__(self, max_bytes: int, max_held_bytes: int) -> None:
        """max_bytes: of one body. max_held_bytes: of all at once. Their time is the connection's to limit."""
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self.held_bytes = 0

    async def take(self, request: Request) -> bytes:
        """Return the body of a request; its bytes count as held until `release` is called with `request.held`.

        Raises RefusedError for one that is compressed, too large or one too many; DisconnectedError.
        """
        body = await self._read(request.headers, request.receive)
        request.held = len(body)
        return body

    async def _read(self, headers: Mapping[bytes, bytes], receive: Any) -> bytes:
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise RefusedError(
                "unsupported_type", "The body is compressed (Content-Encoding); send it as it is.", closes=True
            )
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max_bytes:
            await self._drop(int(announced), headers, receive)
            raise self._too_large()
        message = arrived(await receive())
        body = message.get("body", b"")
        if not message.get("more_body", False):
            # The usual case: the body arrived with the headers.
            return self._hold(body)
        return await self._rest(body, headers, receive)

    def has_room(self, length: int) -> bool:
        """Return whether a body of so many bytes is small enough, and may be in the server beside the others."""
        return length <= self._max_bytes and self.held_bytes + length <= self._max_held_bytes

    def release(self, length: int) -> None:
        """Count `length` bytes as held no more."""
        self.held_bytes -= length

    async def _rest(self, start: bytes, headers: Mapping[bytes, bytes], receive: Any) -> bytes:
        parts, length, held, more = [start], len(start), 0, True
        try:
            while more:
                self._check_held(length - held)
                self.held_bytes += length - held
                held = length
                message = arrived(await receive())
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                more = message.get("more_body", False)
                if length > self._max_bytes:
                    parts.clear()
                    await self._drop(None, headers, receive)
                    raise self._too_large()
        finally:
            self.held_bytes -= held
        return self._hold(b"".join(parts))

    def _hold(self, body: bytes) -> bytes:
        if len(body) > self._max_bytes:
            raise self._too_large()
        self._check_held(len(body))
        self.held_bytes += len(body)
        return body

    def _check_held(self, more: int) -> None:
        if self.held_bytes + more > self._max_held_bytes:
            raise RefusedError(
                "busy", "The server holds as many bytes of other requests as it may.", retry_after=1, closes=True
            )

    async def _drop(self, announced: int | None, headers: Mapping[bytes, bytes], receive: Any) -> None:
        """Take the rest of a body off the line, within limits, so that its sender comes to read the answer."""
        # A client that waits for "100 Continue" reads it without having sent anything.
        if (announced or 0) > DROPPED_BYTES or headers.get(b"expect", b"").lower() == b"100-continue":
            return
        dropped, more = 0, True
        try:
            async with asyncio.timeout(DROPPED_SECONDS):
                while more and dropped < DROPPED_BYTES:
                    message = arrived(await receive())
                    dropped += len(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            return

    def _too_large(self) -> RefusedError:
        return RefusedError("body_too_large", f"The body has more than {self._max_bytes:,} bytes.", closes=True)


def arrived(message: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a body; raises DisconnectedError for the message that no more will come."""
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return message


def parts_of(body: bytes, content_type: bytes, max_images: int) -> list[Upload]:
    """Return the files of a multipart/form-data body in the order in which they were sent.

    Fields that are no files count as well, under their field's name: some clients send images so.
    Raises RefusedError if it is damaged, cut off, or holds none or more than `max_images`.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise RefusedError("bad_multipart", "Content-Type is multipart/form-data without a boundary.")
    collector = PartCollector(max_images)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, UnicodeError) as error:
        raise RefusedError("bad_multipart", f"The multipart body is damaged: {error}.") from None
    if not collector.ended:
        raise RefusedError("bad_multipart", "The multipart body is cut off: its last boundary is missing.")
    if not collector.uploads:
        raise RefusedError("empty_body", "The multipart body holds no image.")
    return collector.uploads


class PartCollector:
    """What the multipart parser calls: keeps the parts of a body."""

    def __init__(self, max_images: int) -> None:
        self._max_images = max_images
        self._field, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._content = bytearray()
        self.uploads: list[Upload] = []
        self.ended = False

    def callbacks(self) -> Any:
        """Return the parser's callbacks."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self._content.extend(data[start:end]),
            "on_part_end": self._end_part,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.uploads) == self._max_images:
            raise RefusedError("too_many_images", f"The request holds more than {self._max_images} images.")
        self._headers.clear()
        self._content = bytearray()

    def _end_header(self) -> None:
        if len(self._headers) == MAX_PART_HEADERS:
            raise RefusedError("bad_multipart", f"A part has more than {MAX_PART_HEADERS} headers.")
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _end_part(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        name = options.get(b"filename") or options.get(b"name") or b""
        self.uploads.append(Upload(name.decode("utf-8", "replace"), bytes(self._content)))

    def _end(self) -> None:
        self.ended = True
