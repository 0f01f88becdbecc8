"""The studio's server: a page, pictures and events, on this machine only."""

import asyncio
import contextlib
import hashlib
import importlib.resources
import io
import json
import math
import pathlib
import secrets
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from randviz.host.images import (
    TEMPORARY_PREFIX,
    explain_failure,
    load_image,
    resize_image,
    save_image,
    to_8_bits,
)
from randviz.host.samples import SAMPLES, describe_sample, is_painting
from randviz.host.settings import format_list
from randviz.host.signals import Wish
from randviz.host.studio.guard import Guard, load_token
from randviz.host.studio.run_folders import Workshop, new_name
from randviz.tasks.painting import STRENGTH
from randviz.types import UserError

SIZES = (64, 128, 256, 384, 512, 768, 1024)  # longest sides that the page offers, in pixels
_SIZE = 256  # of them, by default
_METHODS = ("filters", "paper")
_OWN = ".studio"  # the folder of the token and of the pictures that were uploaded
_MOST_BYTES = 2**25  # of an uploaded file
_MOST_TEXT = 2**14  # bytes of a request that is no picture
_MOST_STEPS = 10_000
_LONGEST = 2048  # pixels in which uploaded pictures are kept
_MOST_PICTURES = 40  # kept, the newest
_SAMPLE_SIZE = 512  # longest side of a sample that is shown, in pixels
_UPLOAD_SECONDS = 120  # for one
_POLL_SECONDS = 0.4  # between two looks at a run
_GRACE_SECONDS = 5.0  # for a page to be loaded again, before a server that only watches ends
_PAGE = importlib.resources.files("randviz.host.studio") / "page"
_ASSETS = {
    "/studio.css": "text/css; charset=utf-8",
    "/studio.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}


class Studio:
    """What the routes share.

    Attributes:
      workshop: the runs.
      watched: name of the only run to be watched, where nothing else is started.
      closing: whether the server is about to end, and events with it.
      num_watching: pages that follow the events at present.
    """

    def __init__(self, workshop: Workshop, token: str, watched: str = ""):
        self.workshop, self.token, self.watched = workshop, token, watched
        self.pictures = workshop.path / _OWN / "pictures"
        self.closing, self.num_watching = False, 0
        self._lock = asyncio.Lock()  # one start at a time

    def make_app(self, port: int) -> Guard:
        """All that is served, guarded."""
        routes = [
            Route("/", self.show_page),
            *(Route(path, self.show_asset) for path in _ASSETS),
            Route("/choices", self.list_choices),
            Route("/samples/{name}", self.show_sample),
            Route("/pictures", self.add_picture, methods=["POST"]),
            Route("/pictures/{name}", self.show_picture),
            Route("/runs", self.start_run, methods=["POST"]),
            Route("/runs/{name}/stop", self.stop_run, methods=["POST"]),
            Route("/runs/{name}/go_on", self.go_on, methods=["POST"]),
            Route("/runs/{name}/{picture}", self.show_run_picture),
            Route("/events", self.follow),
        ]
        handlers = {UserError: _explain, HTTPException: _explain, FileNotFoundError: _miss}
        app = Starlette(routes=routes, exception_handlers=handlers)
        return Guard(app, token=self.token, port=port)

    async def show_page(self, request: Request) -> Response:
        """The page, with the token that its own requests show."""
        text = (_PAGE / "index.html").read_text(encoding="utf-8")
        return Response(text.replace("{token}", self.token), media_type="text/html")

    async def show_asset(self, request: Request) -> Response:
        """A file of the page's, one of a fixed list."""
        path = request.url.path
        return Response((_PAGE / path[1:]).read_bytes(), media_type=_ASSETS[path])

    async def list_choices(self, request: Request) -> Response:
        """What the page's form offers."""
        samples = [
            {"name": name, "about": describe_sample(name), "is_painting": is_painting(name)}
            for name in SAMPLES
        ]
        return JSONResponse(
            {
                "samples": samples,
                "sizes": SIZES,
                "size": _SIZE,
                "strength": STRENGTH,
                "watched": self.watched,
                "most_bytes": _MOST_BYTES,
            }
        )

    async def show_sample(self, request: Request) -> Response:
        """A sample, small."""
        name = request.path_params["name"]
        if name not in SAMPLES:
            raise FileNotFoundError(name)
        body = await asyncio.to_thread(_encode_sample, name)
        return Response(body, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    async def add_picture(self, request: Request) -> Response:
        """Takes a picture's file as it is, decodes it as all pictures are, and keeps the pixels."""
        self._check_not_watching()
        body = await _read_body(request, _MOST_BYTES)
        name = request.query_params.get("name", "")[:100] or "the file"
        return JSONResponse(await asyncio.to_thread(self._keep_picture, body, name))

    def _keep_picture(self, body: bytes, name: str) -> dict[str, Any]:
        self.pictures.mkdir(parents=True, exist_ok=True)
        upload = self.pictures / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            upload.write_bytes(body)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                image = load_image(upload)
        except UserError as error:
            raise UserError(str(error).replace(str(upload), name)) from error
        except OSError as error:
            raise UserError(f"{name} cannot be kept ({explain_failure(error)}).") from error
        finally:
            upload.unlink(missing_ok=True)
        height, width = image.shape[:2]
        image = resize_image(image, min(_LONGEST, max(height, width)))
        # The pixels alone: no place, no camera, no name.
        key = hashlib.sha256(image.tobytes()).hexdigest()[:24]
        save_image(self.pictures / f"{key}.png", image)
        kept = sorted(self.pictures.glob("*.png"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-_MOST_PICTURES]:
            path.unlink(missing_ok=True)
        said = [str(warning.message).replace(str(upload), name) for warning in caught]
        return {"picture": key, "width": width, "height": height, "warnings": said}

    def _find_upload(self, key: str) -> pathlib.Path:
        path = self.pictures / f"{key}.png"
        is_key = len(key) == 24 and set(key) <= set("0123456789abcdef")
        if not is_key or path.is_symlink() or not path.is_file():
            raise FileNotFoundError(key)
        return path

    async def show_picture(self, request: Request) -> Response:
        """A picture that was uploaded."""
        return FileResponse(self._find_upload(request.path_params["name"]), media_type="image/png")

    async def start_run(self, request: Request) -> Response:
        """Starts a style transfer in a folder of its own."""
        self._check_not_watching()
        asked = await _read_json(request)
        words, pictures, settings = self._read_wishes(asked)
        name = new_name(settings)
        async with self._lock:
            await asyncio.to_thread(self._start, name, words, pictures, settings)
        return JSONResponse({"name": name})

    def _read_wishes(
        self, asked: dict[str, Any]
    ) -> tuple[list[str], dict[str, str], dict[str, Any]]:
        """The command's words but for the uploaded pictures, the pictures, and the settings."""
        size = _read_number(asked, "image_size", min(SIZES), max(SIZES), whole=True)
        steps = _read_number(asked, "num_steps", 0, _MOST_STEPS, whole=True)
        method = asked.get("method")
        if method not in _METHODS:
            raise UserError(f"the method is one of {', '.join(_METHODS)}.")
        words = ["style", f"--image_size={size}", f"--method={method}"]
        if method == "filters":
            words.append(f"--strength={_read_number(asked, 'strength', 0, 1):g}")
        if steps:
            words.append(f"--num_steps={steps}")
        pictures = {}
        for role in ("content", "style"):
            source = asked.get(role)
            source = source if isinstance(source, str) else ""
            try:
                pictures[role] = source if source in SAMPLES else str(self._find_upload(source))
            except FileNotFoundError as error:
                what = "photograph" if role == "content" else "painting"
                raise UserError(f"choose a {what} first.") from error
        style = pictures["style"]
        return (
            words,
            pictures,
            {
                "image_size": size,
                "style_image": style if style in SAMPLES else "own",
            },
        )

    def _start(
        self,
        name: str,
        words: list[str],
        pictures: dict[str, str],
        settings: dict[str, Any],
    ) -> None:
        folder = self.workshop.make(name)
        kept = folder.keep_pictures(pictures, settings["image_size"])
        for role, source in pictures.items():
            named = source if source in SAMPLES else str(kept[role].absolute())
            named = format_list([named]) if role == "style" else named
            words = [*words, f"--{role}_image={named}"]
        folder.write_start(words)
        self.workshop.start(folder)

    async def stop_run(self, request: Request) -> Response:
        """Asks a run to save its state and end."""
        folder = self.workshop.find(request.path_params["name"])
        if not await asyncio.to_thread(folder.stop):
            raise UserError(f"{folder.name} is not at work.")
        return JSONResponse({"name": folder.name})

    async def go_on(self, request: Request) -> Response:
        """Starts a stopped run's command again."""
        folder = self.workshop.find(request.path_params["name"])
        async with self._lock:
            await asyncio.to_thread(self.workshop.start, folder)
        return JSONResponse({"name": folder.name})

    def _check_not_watching(self) -> None:
        if self.watched:
            raise UserError("this page only watches a run; `randviz studio` starts others.")

    async def show_run_picture(self, request: Request) -> Response:
        """A picture of a run's: preview, result, content or style."""
        name, picture = (request.path_params[key] for key in ("name", "picture"))
        path = self.workshop.find(name).find_picture(picture)
        options = {}
        if "download" in request.query_params:
            options["filename"] = f"{name}{path.suffix}"
        return FileResponse(path, **options)

    async def follow(self, request: Request) -> Response:
        """Server-sent events: the list of runs, and all about one, whenever they change."""
        name = request.query_params.get("run", "")
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(
            self._follow(name), media_type="text/event-stream", headers=headers
        )

    async def _follow(self, name: str) -> AsyncIterator[str]:
        self.num_watching += 1
        said: dict[str, str] = {}
        quiet = 0.0
        try:
            yield "retry: 1000\n\n"
            while not self.closing:
                found = await asyncio.to_thread(self._look, name)
                quiet += _POLL_SECONDS
                for event, value in found.items():
                    text = json.dumps(value)
                    if said.get(event) != text:
                        said[event], quiet = text, 0.0
                        yield f"event: {event}\ndata: {text}\n\n"
                if quiet > 15:
                    quiet = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            self.num_watching -= 1

    def _look(self, name: str) -> dict[str, Any]:
        self.workshop.reap()
        found: dict[str, Any] = {"runs": list(self.workshop.list_runs())}
        if name:
            with contextlib.suppress(FileNotFoundError):
                found["run"] = self.workshop.find(name).describe()
        return found


def serve(
    folder: pathlib.Path,
    wish: Wish,
    *,
    port: int = 0,
    watched: str = "",
    ready: Callable[[Workshop, str], None],
) -> Workshop:
    """Serves a folder of runs until there is a wish to stop.

    Args:
      folder: of runs, or of the one that is watched.
      wish: to stop.
      port: to listen on, of this machine's own address; 0 for any.
      watched: name of the only run to be watched: the server then ends with it, once no page is
        open any more.
      ready: called as ready(workshop, address) before the first request.

    Returns:
      The runs, and the processes that are still at work.

    Raises:
      UserError: if the port is taken, or the folder cannot be written.
    """
    listener = _listen(port)
    with listener:
        port = listener.getsockname()[1]
        token = load_token(folder / _OWN / "token")
        workshop = Workshop(folder)
        ready(workshop, f"http://127.0.0.1:{port}/?token={token}")
        asyncio.run(_serve(Studio(workshop, token, watched), listener, port, wish))
    return workshop


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()  # before the address is printed
    except OSError as error:
        listener.close()
        raise UserError(
            f"--port={port} cannot be listened on ({explain_failure(error)}); choose another, or"
            " 0 for any."
        ) from error
    return listener


async def _serve(studio: Studio, listener: socket.socket, port: int, wish: Wish) -> None:
    config = uvicorn.Config(
        studio.make_app(port),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)

    async def wait() -> None:
        alone = 0.0
        while not wish.number and alone < _GRACE_SECONDS:
            await asyncio.sleep(0.1)
            studio.workshop.reap()
            is_over = studio.watched and not studio.workshop.processes and not studio.num_watching
            alone = alone + 0.1 if is_over else 0.0
        studio.closing = server.should_exit = True

    waiting = asyncio.create_task(wait())
    await server.serve(sockets=[listener])
    waiting.cancel()


async def _read_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
      HTTPException: 413 if it is larger than `most` bytes, 408 if it takes too long.
    """
    too_large = HTTPException(413, f"This is more than {most / 2**20:g} MiB; make it smaller.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > most:
        raise too_large
    body = io.BytesIO()
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            async for part in request.stream():
                body.write(part)
                if body.tell() > most:
                    raise too_large
    except (TimeoutError, ClientDisconnect) as error:
        raise HTTPException(408, "The upload was cut short; try again.") from error
    return body.getvalue()


async def _read_json(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await _read_body(request, _MOST_TEXT))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "This is no JSON object.")
    return found


def _read_number(
    asked: dict[str, Any], name: str, lower: float, upper: float, *, whole: bool = False
) -> float:
    value = asked.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not lower <= value <= upper:
        raise UserError(f"{name} is a number from {lower:g} to {upper:g}.")
    if whole and value != int(value):
        raise UserError(f"{name} is a whole number.")
    return int(value) if whole else value


def _encode_sample(name: str) -> bytes:
    image = load_image(name)
    image = resize_image(image, min(_SAMPLE_SIZE, max(image.shape)))
    body = io.BytesIO()
    to_8_bits(image, name).convert("RGB").save(body, "JPEG", quality=85)
    return body.getvalue()


async def _explain(request: Request, error: Exception) -> Response:
    """A mistake as one sentence."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    said = error.detail if isinstance(error, HTTPException) else str(error)
    return JSONResponse({"error": said[:1].upper() + said[1:]}, status)


async def _miss(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "There is no such thing here."}, 404)
