"""Who may speak to the studio: this machine, by its own name, with the token."""

import hmac
import http.cookies
import os
import pathlib
import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from randviz.host.images import explain_failure
from randviz.types import UserError

TOKEN_HEADER = "x-studio-token"
_HEADERS = {
    # Everything from here, nothing inline, and in nobody's frame.
    "content-security-policy": "default-src 'none'; img-src 'self' blob:; style-src 'self';"
    " script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def load_token(path: pathlib.Path) -> str:
    """The token of a studio's folder, made when it is first asked for.

    It is kept, readable by its owner only, so that a page that is open stays good when the server
    is started again.

    Args:
      path: of the file.

    Raises:
      UserError: if the file cannot be read or written, is a link, or holds no token.
    """
    token = secrets.token_urlsafe(32)
    no_link = getattr(os, "O_NOFOLLOW", 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | no_link, 0o600)
        except FileExistsError:
            with open(os.open(path, os.O_RDONLY | no_link), encoding="ascii") as opened:
                token = opened.read(100)
        else:
            with open(file, "w", encoding="ascii") as opened:
                opened.write(token)
    except (OSError, ValueError) as error:
        reason = explain_failure(error) if isinstance(error, OSError) else "it holds no token"
        raise UserError(f"{path} cannot be used ({reason}); remove it.") from error
    if len(token) < 32:
        raise UserError(f"{path} cannot be used (it holds no token); remove it.")
    return token


class Guard:
    """Lets through what names this server as its host and shows the token.

    A page of another site can make a browser send requests here. It cannot name the host (its own
    name may lead here, but is another), nor send the cookie along, which is SameSite=Strict, nor
    set the header that every POST needs.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: int):
        """Prepares.

        Args:
          app: what is guarded.
          token: as `load_token` gives it.
          port: on which the server listens.
        """
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        # Cookies know no ports; servers beside this one have their own.
        self.cookie = f"randviz_studio_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        shown = _find_last(parse_qs(scope["query_string"].decode("latin-1")).get("token"))
        is_entrance = scope["path"] == "/" and scope["method"] == "GET" and self._is_token(shown)
        refusal = self._find_refusal(scope, headers, is_entrance)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer[name] = value
                if is_entrance and not refusal:
                    answer["set-cookie"] = (
                        f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                    )
            await send(message)

        app = PlainTextResponse(refusal, 403) if refusal else self.app
        await app(scope, receive, send_guarded)

    def _find_refusal(self, scope: Scope, headers: Headers, is_entrance: bool) -> str:
        """Why a request is refused; empty if it is not."""
        if headers.getlist("host") not in [[host] for host in self.hosts]:
            return "This is not the name of this server; open the address that it printed."
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.hosts}:
            return "Other sites may not speak to this server."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return "This server knows GET and POST only."
        if not is_entrance and not self._is_token(self._find_cookie(headers)):
            return "The token is missing or wrong; open the address that the server printed."
        if scope["method"] == "POST" and not self._is_token(headers.get(TOKEN_HEADER)):
            return "The token is missing or wrong; load the page again."
        return ""

    def _find_cookie(self, headers: Headers) -> str | None:
        jar = http.cookies.SimpleCookie()
        try:
            jar.load(headers.get("cookie", ""))
        except http.cookies.CookieError:
            return None
        return jar[self.cookie].value if self.cookie in jar else None

    def _is_token(self, shown: str | None) -> bool:
        return hmac.compare_digest((shown or "").encode(), self.token.encode())


def _find_last(values: list[str] | None) -> str | None:
    return values[-1] if values else None
