"""The studio's page in a real browser: a whole visit, by mouse and by keyboard."""

import contextlib
import io
import pathlib
import shutil
import signal

import numpy as np
import psutil
import pytest
from PIL import Image as Pillow

from tests.test_studio import Server, encode

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
SWITCHES += ["--disable-background-networking", "--disable-component-update"]
SECONDS = 40_000  # milliseconds, for what waits for a run

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page of which every mistake in a script, and every request to elsewhere, is remembered."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.mistakes, page.hosts = [], set()
    page.on("pageerror", lambda error: page.mistakes.append(str(error)))
    page.on("request", lambda request: page.hosts.add(request.url.split("/")[2]))
    yield page
    assert page.mistakes == []
    assert {host.split(":")[0] for host in page.hosts} == {"127.0.0.1"}
    context.close()


@pytest.fixture
def start(tmp_path):
    """Starts servers on one folder; at the end all of them and their runs are stopped."""
    started = []

    def start(*words):
        started.append(Server(tmp_path / "runs", *words))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.close()
        server.process.stdout.close()


def download(page):
    with page.expect_download() as found:
        page.click("#download")
    file = pathlib.Path(found.value.path()).read_bytes()
    return found.value.suggested_filename, np.asarray(Pillow.open(io.BytesIO(file)))


def find_run(folder):
    """The process at work in a folder of runs."""
    starts = [str(path.parents[1]) for path in folder.glob("*/studio/start.json")]
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if any(f"--out_dir={start}" in (process.info["cmdline"] or ()) for start in starts):
                return process
    raise AssertionError("no run is at work")


@pytest.mark.slow
def test_a_visit(page, start, tmp_path):
    server = start()
    page.goto(server.address)
    expect(page.locator("#size option")).not_to_have_count(0)
    assert "token" not in page.url

    # Nothing chosen: said, and the focus is where it can be mended.
    page.click("#start")
    expect(page.locator("#form-error")).to_have_text("Choose a photograph first.")
    assert page.evaluate("document.activeElement.closest('fieldset').id") == "content"

    not_a_picture = {"name": "a.png", "mimeType": "image/png", "buffer": b"no"}
    page.set_input_files("#content input", not_a_picture)
    expect(page.locator("#content-said")).to_contain_text("A.png is not of a kind")
    photograph = {"name": "me.png", "mimeType": "image/png", "buffer": encode(64, 48)}
    page.set_input_files("#content input", photograph)
    expect(page.locator("#content-said")).to_contain_text("me.png, 64 × 48")
    page.click("#style summary")
    page.click("#style button[data-name=starry_night]")
    page.select_option("#size", "64")
    page.click(".more summary")
    page.fill("#steps", "8000")
    page.click("#start")

    # It runs, and a page that is loaded again shows the same run and the same wishes.
    expect(page.locator("#numbers")).to_contain_text(" left", timeout=SECONDS)
    assert page.locator("#curve .loss").get_attribute("d").startswith("M")
    page.reload()
    expect(page.locator("#numbers")).to_contain_text("of 8000", timeout=SECONDS)
    expect(page.locator("#steps")).to_have_value("8000")
    expect(page.locator("#content-said")).to_contain_text("me.png")

    # Only one at a time.
    page.click("#start")
    expect(page.locator("#form-error")).to_contain_text("is at work")

    # Killed outright, the server leaves the run to go on; another one finds it.
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    expect(page.locator("#connection")).to_contain_text("does not answer", timeout=SECONDS)
    step = int(
        page.locator("#progress").get_attribute("value")
        or page.locator("#progress").evaluate("bar => bar.value")
    )
    start("studio", f"--port={server.port}")
    expect(page.locator("#connection")).to_have_text("", timeout=SECONDS)
    wait_for(page, f"document.getElementById('progress').value > {step}")

    # Stop and go on, by keyboard.
    page.focus("#stop")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Stopped after step", timeout=SECONDS)
    expect(page.locator("#go-on")).to_be_focused()
    stopped = page.locator("#progress").evaluate("bar => bar.value")
    name, pixels = download(page)
    assert pixels.shape == (48, 64, 3) and name.endswith(".png")
    page.focus("#go-on")
    page.keyboard.press("Enter")
    wait_for(page, f"document.getElementById('progress').value > {stopped}")
    find_run(tmp_path / "runs").terminate()  # from elsewhere, as from a terminal
    expect(page.locator("#status")).to_contain_text("Stopped after step", timeout=SECONDS)

    # A short one to its end; what is downloaded is what the run wrote.
    page.fill("#steps", "20")
    page.click("#start")
    expect(page.locator("#status")).to_have_text("Finished", timeout=SECONDS)
    name, pixels = download(page)
    (written,) = (tmp_path / "runs").glob("*/out.png")
    assert name == f"{written.parent.name}.png"
    np.testing.assert_array_equal(pixels, np.asarray(Pillow.open(written)))

    # The slider, by keyboard.
    page.focus("#compare")
    page.keyboard.press("End")
    assert page.locator("#compare").get_attribute("aria-valuetext") == "100 percent photograph"
    assert page.locator("#over").evaluate("over => over.style.clipPath") in (
        "inset(0px)",
        "inset(0px 0% 0px 0px)",
    )

    # The strip leads back to the earlier run.
    expect(page.locator("#runs a")).to_have_count(2)
    page.locator("#runs a").nth(1).click()
    expect(page.locator("#status")).to_contain_text("Stopped after step")

    # On a telephone nothing is wider than the screen, and everything is large enough to touch.
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("button:visible, .button:visible, select:visible").all():
        assert button.bounding_box()["height"] >= 40


def drop(page, selector, name, data):
    """Drops a file; returns whether the page took it from the browser, which would open it."""
    return page.locator(selector).evaluate(
        """(target, [name, data]) => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(data)], name, { type: "image/png" }));
          const options = { dataTransfer: carried, bubbles: true, cancelable: true };
          target.dispatchEvent(new DragEvent("dragenter", options));
          const over = target.dispatchEvent(new DragEvent("dragover", options));
          return !over && !target.dispatchEvent(new DragEvent("drop", options));
        }""",
        [name, list(data)],
    )


def test_a_picture_is_dropped(page, start):
    page.goto(start().address)
    expect(page.locator("#size option")).not_to_have_count(0)
    assert drop(page, "#style .drop", "wave.png", encode(40, 30))
    expect(page.locator("#style-said")).to_contain_text("wave.png, 40 × 30")
    assert page.locator("#style .drop img").is_visible()
    assert page.locator(".over").count() == 0
    # Beside the place for it nothing happens, least of all another page.
    assert drop(page, "header", "me.png", encode(64, 48))
    expect(page.locator("#content-said")).to_have_text("")
    assert drop(page, "#content .drop", "me.png", b"no")
    expect(page.locator("#content-said")).to_contain_text("Me.png is not of a kind")


def test_everything_has_a_name_and_can_be_reached_by_keyboard(page, start):
    page.goto(start().address)
    expect(page.locator("#size option")).not_to_have_count(0)
    for field in page.locator(
        "input:visible, select:visible, button:visible, summary:visible"
    ).all():
        named = "field => field.ariaLabel || field.labels?.[0]?.innerText || field.innerText"
        assert field.evaluate(named).strip()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(e => e.id || e.closest('fieldset, details')?.id)(document.activeElement)"
            )
        )
    wanted = ["content", "style", "strength", "size", "method", "start"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted


def wait_for(page, condition):
    """Waits for what is no text; the page's policy forbids playwright's own way."""
    for _ in range(SECONDS // 100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(condition)
