"""The studio: who may speak to it, what it serves, and runs seen from another process."""

import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import psutil
import pytest
from PIL import Image as Pillow

from randviz.__main__ import main
from randviz.commands import style, texture
from randviz.host.images import load_image
from randviz.host.preview import PICTURE, PROGRESS, Preview
from randviz.host.settings import list_flags, parse_flags
from randviz.host.studio.run_folders import RunFolder, Workshop
from tests.pictures import explained

PAGE = pathlib.Path(style.__file__).parents[1] / "host" / "studio" / "page"
RUN = ["style", "--content_image=columns", "--style_image=starry_night", "--image_size=24"]
RUN += ["--num_steps=6"]


class Server:
    """`randviz studio` in a process of its own, and requests to it."""

    def __init__(self, folder, *words):
        words = words or ("studio", "--port=0")
        command = [sys.executable, "-m", "randviz", *words, f"--out_dir={folder}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = next(
            found[0] for line in self.process.stdout if (found := re.search(r"http://\S+", line))
        )
        self.port = int(re.search(r":(\d+)/", self.address)[1])
        self.token = self.address.partition("token=")[2]
        self.cookie = f"randviz_studio_{self.port}={self.token}"

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body of an answer; a header that is None is left out."""
        sent = {
            "Host": f"127.0.0.1:{self.port}",
            "Cookie": self.cookie,
            "X-Studio-Token": self.token,
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            if body is not None:
                sent.setdefault("Content-Length", str(len(body)))
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def follow(self, run):
        """The descriptions of a run, as the server sends them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"/events?run={run}", headers={"Cookie": self.cookie})
            event = ""
            for line in connection.getresponse():
                name, _, value = line.decode().strip().partition(": ")
                event = value if name == "event" else event
                if name == "data" and event == "run":
                    yield json.loads(value)

    def close(self):
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    (folder / "secret.txt").write_text("secret")
    (folder / "run" / "studio").mkdir(parents=True)
    (folder / "run" / "studio" / "start.json").write_text('{"words": ["style"], "cwd": "/"}')
    (folder / "run" / "studio" / "content.png").symlink_to(folder / "secret.txt")
    (folder / "run" / "out.png").symlink_to(folder / "secret.txt")
    (folder / "elsewhere").symlink_to(folder / "run", target_is_directory=True)
    server = Server(folder)
    server.folder = folder
    yield server
    assert server.close() == -signal.SIGTERM


def encode(width=20, height=16):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_only_this_machines_address_is_listened_on(server):
    listening = [c for c in psutil.Process(server.process.pid).net_connections() if not c.raddr]
    assert [connection.laddr.ip for connection in listening] == ["127.0.0.1"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": "127.0.0.1:1"},
        {"Host": None},
        {"Cookie": None},
        {"Cookie": "randviz_studio_PORT=wrong"},
        {"Cookie": "randviz_studio_PORT=\xe9"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/studio.js", "/choices", "/samples/coffee", "/events"])
def test_strangers_are_refused(server, headers, path):
    headers = {k: v and v.replace("PORT", str(server.port)) for k, v in headers.items()}
    status, _, body = server.ask("GET", path, **headers)
    assert status == 400 if "Host" in headers and headers["Host"] is None else status == 403
    assert server.token.encode() not in body


@pytest.mark.parametrize("token", [None, "", "wrong"])
@pytest.mark.parametrize("path", ["/runs", "/pictures", "/runs/run/stop", "/runs/run/go_on"])
def test_a_post_needs_the_token_besides_the_cookie(server, token, path):
    assert server.ask("POST", path, b"{}", X_Studio_Token=token)[0] == 403


def test_the_address_that_is_printed_opens_the_page_and_sets_the_cookie(server):
    path = server.address.partition(str(server.port))[2]
    status, headers, body = server.ask("GET", path, Cookie=None)
    assert status == 200 and b"<h1>Studio</h1>" in body
    name, *attributes = headers["set-cookie"].split("; ")
    assert name == server.cookie and {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert server.ask("GET", "/?token=wrong", Cookie=None)[0] == 403
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert server.ask("GET", "/studio.js")[1]["content-security-policy"] == policy


def test_the_page_names_nothing_from_elsewhere():
    for path in PAGE.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|url\(|@import|[\"']//|style=\"|innerHTML|\bon\w+=\"", text)


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/runs/../secret.txt",
        "/runs/..%2f..%2fsecret.txt/result",
        "/runs/%2e%2e/result",
        "/runs/./result",
        "/runs/.studio/token",
        "/runs/run/result",  # a link to a file
        "/runs/run/content",  # a link to a file
        "/runs/run/start.json",
        "/runs/run/..%2f..%2fsecret.txt",
        "/runs/elsewhere/content",  # a link to a folder
        "/runs/secret.txt/result",
        "/runs/run%00/result",
        "/pictures/..%2ftoken",
        "/pictures/token",
        "/samples/..%2fsamples.toml",
        "/samples/etc",
        "/page/studio.js",
    ],
)
def test_nothing_but_a_runs_own_pictures_is_served(server, path):
    status, _, body = server.ask("GET", path)
    assert status == 404 and b"secret" not in body


def test_a_large_upload_is_refused_before_and_while_it_is_read(server):
    declared = str(2**25 + 1)
    status, _, body = server.ask("POST", "/pictures", b"", Content_Length=declared)
    assert status == 413 and b"32 MiB" in body
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = f"POST /pictures HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        head += f"Cookie: {server.cookie}\r\nX-Studio-Token: {server.token}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"100000\r\n" + bytes(2**20) + b"\r\n"
        with contextlib.suppress(ConnectionError):  # the server may close as soon as it has said no
            for _ in range(33):
                connection.sendall(part)
        assert b" 413 " in connection.recv(100)
    assert not list(server.folder.glob(".studio/pictures/*"))


@pytest.mark.parametrize("body", [b"", b"not a picture", encode()[:200]])
def test_what_is_no_picture_is_refused_in_a_sentence(server, body):
    status, _, said = server.ask("POST", "/pictures?name=my%20photo.png", body)
    message = json.loads(said)["error"]
    assert status == 400 and message.startswith("My photo.png ") and message.endswith(".")
    assert str(server.folder) not in message and ". " not in message
    assert not list(server.folder.glob(".studio/pictures/*"))


def test_an_upload_is_kept_as_pixels(server):
    status, _, said = server.ask("POST", "/pictures?name=a.png", encode(20, 16))
    found = json.loads(said)
    assert status == 200 and (found["width"], found["height"]) == (20, 16)
    status, headers, body = server.ask("GET", f"/pictures/{found['picture']}")
    assert status == 200 and headers["content-type"] == "image/png"
    original = np.asarray(Pillow.open(io.BytesIO(encode(20, 16))))
    np.testing.assert_array_equal(np.asarray(Pillow.open(io.BytesIO(body))), original)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"strength": 2}, "strength"),
        ({"strength": "1"}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"image_size": 10**6}, "image_size"),
        ({"image_size": 64.5}, "whole"),
        ({"num_steps": True}, "num_steps"),
        ({"method": "--help"}, "method"),
        ({"content": "/etc/passwd"}, "photograph"),
        ({"style": ["starry_night"]}, "painting"),
    ],
)
def test_a_wish_that_cannot_be_met_starts_nothing(server, change, part):
    wish = {"content": "columns", "style": "starry_night", "strength": 0.5}
    wish |= {"image_size": 64, "num_steps": 1, "method": "filters", **change}
    status, _, said = server.ask("POST", "/runs", json.dumps(wish).encode())
    assert status == 400 and part in json.loads(said)["error"].lower()
    assert {path.name for path in server.folder.iterdir() if path.is_dir()} <= {
        ".studio",
        "run",
        "elsewhere",
    }
    assert server.ask("POST", "/runs", b"[" * 9000)[0] == 400


def test_a_port_that_is_taken_is_named(server, capsys, tmp_path):
    assert main(["studio", f"--port={server.port}", f"--out_dir={tmp_path}"]) == 2
    assert f"--port={server.port} cannot be listened on" in capsys.readouterr().err


def test_the_token_is_the_owners_alone_and_no_link(server, tmp_path, capsys):
    token = server.folder / ".studio" / "token"
    assert token.read_text() == server.token and token.stat().st_mode & 0o777 == 0o600
    (tmp_path / ".studio").mkdir()
    (tmp_path / ".studio" / "token").symlink_to(token)
    assert main(["studio", "--port=0", f"--out_dir={tmp_path}"]) == 2
    assert "remove it." in capsys.readouterr().err


@pytest.mark.parametrize("words", [["studio"], [*RUN, "--watch"]])
def test_a_missing_extra_is_named_with_the_remedy(words, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "randviz.host.studio.server", raising=False)
    assert main([*words, f"--out_dir={tmp_path}"]) == 2
    assert "needs uvicorn" in (said := capsys.readouterr().err) and "randviz[studio]" in said


def test_flags_of_settings_are_read_as_these_settings():
    words = ['--style_image="a, b.png",c.png', "--strength=0.25", "--square", "--seed=3"]
    settings = parse_flags(style.Settings, words)
    assert parse_flags(style.Settings, list_flags(settings)) == settings
    assert list_flags(parse_flags(texture.Settings, [])) == []


def test_a_preview_shows_the_run_and_leaves_the_picture_as_it_is(tmp_path, monkeypatch):
    seen = []
    report = Preview.report

    def watch(self, *args):
        report(self, *args)
        seen.append(json.loads((self.folder / PROGRESS).read_text()))
        assert load_image(self.folder / PICTURE).shape == (24, 18, 3)

    monkeypatch.setattr(Preview, "report", watch)
    assert main([*RUN, "--preview", f"--out_dir={tmp_path / 'a'}"]) == 0
    assert seen[-1]["step"] == seen[-1]["total"] == 6
    assert main([*RUN, f"--out_dir={tmp_path / 'b'}"]) == 0
    assert (tmp_path / "a/out.png").read_bytes() == (tmp_path / "b/out.png").read_bytes()
    losses = json.loads((tmp_path / "a/run.json").read_text())["losses"]
    np.testing.assert_allclose(seen[-1]["losses"], losses, rtol=1e-4)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["out.png", "run.json"]
    run = RunFolder(tmp_path / "a").describe()
    assert run["phase"] == "finished" and run["pictures"].keys() == {"result"}
    with explained("was not started from here"):
        RunFolder(tmp_path / "a").start()


def test_a_preview_that_cannot_be_written_ends_no_run(tmp_path):
    (tmp_path / "file").touch()
    Preview(tmp_path / "file", 3).report(np.ones(2), None, np.zeros((8, 8, 3)))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100_000, '{"command": "style"}', '{"command": "style", "losses": 3}'],
)
def test_damaged_records_are_no_runs(text, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)
    assert list(Workshop(tmp_path).list_runs()) == []


@pytest.mark.parametrize("words", [["clear"], ["style;ls"], [], ["-c"]])
def test_only_descents_are_started(words, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_start(words)
    with explained("not started from here"):
        folder.start()


def test_a_process_of_the_same_number_is_not_taken_for_the_run(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_start(["style"], psutil.Process())
    assert folder.find_process().pid == os.getpid()
    start = json.loads((tmp_path / "studio" / "start.json").read_text())
    (tmp_path / "studio" / "start.json").write_text(json.dumps(start | {"born": 1.0}))
    assert folder.find_process() is None
    (tmp_path / ".lock").write_text(str(os.getpid()))
    assert folder.find_process().pid == os.getpid()
    os.utime(tmp_path / ".lock", (1, 1))
    assert folder.find_process() is None


@pytest.mark.slow
def test_a_run_is_watched_stopped_and_gone_on_with_from_the_command_line(tmp_path):
    """And `--watch` ends with the run, once no page is open."""
    run = tmp_path / "me"
    long = [word.replace("--num_steps=6", "--num_steps=900") for word in RUN]
    server = Server(run, *long, "--watch")
    found = server.follow("me")
    assert next(one for one in found if one["step"] > 1)["phase"] == "running"
    assert server.ask("POST", "/runs", b"{}")[0] == 400  # it starts no others
    assert server.ask("GET", "/runs/me/content")[0] == 200
    assert server.ask("POST", "/runs/me/stop", b"")[0] == 200
    stopped = next(one for one in found if one["phase"] == "stopped")
    assert stopped["can_go_on"] and 1 < stopped["step"] < 900
    assert server.ask("GET", "/runs/me/preview")[1]["content-type"] == "image/png"
    assert server.ask("POST", "/runs/me/go_on", b"")[0] == 200
    assert next(one for one in found if one["phase"] == "finished")["step"] == 900
    found.close()
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    record = json.loads((run / "run.json").read_text())
    assert record["sessions"] == 2 and (run / "out.png").exists()


@pytest.mark.slow
def test_a_watched_command_ends_as_its_run_does(tmp_path, capfd):
    """Refused by the run: said once by it, and the exit code is a mistake's."""
    bad = ["--scale_sizes=9", "--watch"]
    server = Server(tmp_path / "me", *RUN, *bad)
    server.process.communicate(timeout=60)
    assert server.process.returncode == 2
    assert "--scale_sizes ends at 9" in capfd.readouterr().err
