// The page of the studio. All that it shows comes from the server's events, so that it may be
// loaded again at any moment, and so may the server.

const $ = (id) => document.getElementById(id);
const TOKEN = document.querySelector("meta[name=studio-token]").content;
const sources = { content: "", style: "" }; // a sample's name or an uploaded picture's
const uploads = { content: null, style: null }; // promises of pictures on their way
let choices = null;
let events = null;
let retry = 0;
let shown = null; // the run as it was last described
let spoken = ""; // what the status last said
let sentTo = ""; // the run whose address the compare slider was set for

// The token came with the address and is in a cookie now.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);

async function send(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body, headers: { "X-Studio-Token": TOKEN } });
  } catch {
    throw new Error("The studio does not answer; start it again in the terminal.");
  }
  const text = await answer.text();
  let said = {};
  try {
    said = JSON.parse(text);
  } catch {
    said = { error: text };
  }
  if (!answer.ok) throw new Error(said.error || "This could not be done.");
  return said;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const title = (name) => {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
};

// Photograph and painting.

function showSource(role, value, address, said) {
  sources[role] = value;
  $("form-error").textContent = ""; // perhaps that it was missing
  const field = $(role);
  const image = field.querySelector(".drop img");
  image.src = address;
  image.hidden = false;
  image.alt = `The ${field.dataset.what} chosen`;
  field.querySelector(".drop").classList.add("filled");
  field.querySelector(".hint").textContent = `Drop or choose another ${field.dataset.what}`;
  field.querySelector(".said").textContent = said;
  for (const button of field.querySelectorAll(".samples button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === value));
  }
  sessionStorage.setItem(`studio-${role}`, JSON.stringify([value, address, said]));
}

async function upload(role, file) {
  const said = $(`${role}-said`);
  if (!file) return;
  if (file.size > choices.most_bytes) {
    said.textContent = `${file.name} is larger than ${choices.most_bytes / 2 ** 20} MiB; make it smaller.`;
    return;
  }
  said.textContent = `Reading ${file.name} …`;
  try {
    const kept = await send(`/pictures?name=${encodeURIComponent(file.name)}`, file);
    const about = [`${file.name}, ${kept.width} × ${kept.height}`, ...kept.warnings].join("; ");
    showSource(role, kept.picture, `/pictures/${kept.picture}`, about);
  } catch (error) {
    said.textContent = error.message;
  }
}

// Missed by a little, a file would be opened in place of the page.
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => event.preventDefault());
}

function prepareSource(role) {
  const field = $(role);
  const drop = field.querySelector(".drop");
  const input = drop.querySelector("input");
  const take = (file) => (uploads[role] = upload(role, file));
  input.addEventListener("change", () => take(input.files[0]).then(() => (input.value = "")));
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  const list = field.querySelector(".samples");
  const wanted = role === "style";
  const sorted = [...choices.samples].sort(
    (a, b) => (b.is_painting === wanted) - (a.is_painting === wanted)
  );
  for (const sample of sorted) {
    const address = `/samples/${sample.name}`;
    const image = make("img", { src: address, alt: "", loading: "lazy" });
    const button = make("button", { type: "button", "aria-pressed": "false", title: sample.about }, image);
    button.setAttribute("aria-label", sample.about);
    button.dataset.name = sample.name;
    button.addEventListener("click", () => showSource(role, sample.name, address, sample.about));
    list.append(button);
  }
  const kept = sessionStorage.getItem(`studio-${role}`);
  if (kept) showSource(role, ...JSON.parse(kept));
}

// The form.

function showDial() {
  const paper = $("method").value === "paper";
  $("strength").disabled = paper;
  $("dial").classList.toggle("off", paper);
  $("strength-value").textContent = paper ? "not of the paper’s method" : Number($("strength").value).toFixed(2);
}

function keepForm() {
  const kept = ["strength", "size", "method", "steps"].map((id) => $(id).value);
  sessionStorage.setItem("studio-form", JSON.stringify(kept));
  showDial();
}

async function start(event) {
  event.preventDefault();
  $("form-error").textContent = "";
  await Promise.all(Object.values(uploads));
  for (const role of ["content", "style"]) {
    if (!sources[role]) {
      $("form-error").textContent = `Choose a ${$(role).dataset.what} first.`;
      $(role).querySelector("input").focus();
      return;
    }
  }
  $("start").disabled = true;
  try {
    const wishes = {
      ...sources,
      strength: Number($("strength").value),
      image_size: Number($("size").value),
      method: $("method").value,
      num_steps: Number($("steps").value),
    };
    const { name } = await send("/runs", JSON.stringify(wishes));
    open(name);
    $("stage").focus({ preventScroll: true });
    $("stage").scrollIntoView({ block: "nearest" });
  } catch (error) {
    $("form-error").textContent = error.message;
  }
  $("start").disabled = false;
}

// The run.

function open(name) {
  location.hash = name;
  shown = null;
  follow();
}

async function act(what) {
  $("run-error").textContent = "";
  try {
    await send(`/runs/${encodeURIComponent(shown.name)}/${what}`, "");
  } catch (error) {
    $("run-error").textContent = error.message;
  }
}

function describe(run) {
  const { content_image, image, texture_image, style_image } = run.settings;
  const short = (source) => title(source.split(/[\\/]/).pop().replace(/\.\w+$/, "").replaceAll('"', ""));
  const own = (source, text) => (/studio[\\/](content|style)\.png"?$/.test(source) ? text : short(source));
  const from = own(content_image || image || texture_image || "", "Your photograph");
  return style_image ? `${from}, after ${own(style_image, "your painting")}` : from;
}

function showPicture(run) {
  const finished = run.phase === "finished";
  const kind = finished ? "result" : "preview";
  const at = (name) => `/runs/${encodeURIComponent(run.name)}/${name}?v=${run.pictures[name]}`;
  const has = Boolean(run.pictures[kind]);
  const address = has ? at(kind) : run.pictures.content ? at("content") : "";
  $("empty").hidden = Boolean(address);
  $("frame").hidden = !address;
  if (address && $("picture").dataset.address !== address) {
    $("picture").dataset.address = address;
    // Shown once it is there, so that the picture does not flicker.
    const next = new Image();
    next.src = address;
    next.decode().then(
      () => {
        if ($("picture").dataset.address !== address) return;
        $("picture").src = address;
        fit(next);
      },
      () => {}
    );
  }
  $("picture").alt = has
    ? `${describe(run)}${finished ? "" : `, after step ${run.step}`}`
    : "The photograph, before the first step";
  const compares = finished && has && Boolean(run.pictures.content);
  for (const id of ["over", "divider", "compare"]) $(id).hidden = !compares;
  if (compares && sentTo !== run.name) {
    sentTo = run.name;
    $("photograph").src = at("content");
    $("compare").value = 50;
  }
  compare();
}

function fit(image) {
  // Small pictures are enlarged, so that something is seen of them, and none is cut off.
  const room = $("easel").clientWidth - 2 * parseFloat(getComputedStyle($("easel")).paddingLeft);
  const high = Math.max(260, window.innerHeight * 0.5);
  const scale = Math.min(room / image.naturalWidth, high / image.naturalHeight);
  $("picture").style.width = `${Math.floor(image.naturalWidth * Math.min(scale, 4))}px`;
}

function compare() {
  const share = Number($("compare").value);
  $("over").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  $("divider").style.left = `${share}%`;
  $("compare").setAttribute("aria-valuetext", `${share} percent photograph`);
}

function showCurve(run) {
  const points = run.losses.map((loss, i) => [run.steps[i], loss]).filter(([, loss]) => loss > 0);
  $("curve").hidden = points.length < 2;
  if (points.length < 2) return;
  const logs = points.map(([, loss]) => Math.log(loss));
  const low = Math.min(...logs);
  const span = Math.max(...logs) - low || 1;
  const path = points.map(([step], i) => {
    const x = (400 * step) / run.total;
    const y = 86 - (82 * (logs[i] - low)) / span;
    return `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  $("curve").querySelector(".loss").setAttribute("d", path.join(""));
  const number = (value) => Number(value.toPrecision(3));
  const [first, last] = [points[0][1], points[points.length - 1][1]];
  $("curve-said").textContent = `Loss, on a logarithmic scale: ${number(first)} at first, ${number(last)} at step ${run.step}`;
}

function showRun(run) {
  const before = shown;
  shown = run;
  document.body.classList.add("showing");
  const { strength, image_size, method } = run.settings;
  const isFilters = method !== "paper" && strength;
  const details = [isFilters && `strength ${strength}`, image_size && `${image_size} px`, method === "paper" && "the paper’s method"];
  $("run-title").textContent = [describe(run), ...details.filter(Boolean)].join(" · ");
  $("run-title").classList.remove("quiet");
  $("work").hidden = false;
  showPicture(run);
  showCurve(run);
  const running = run.phase === "running";
  const tenths = run.total ? Math.floor((10 * run.step) / run.total) : 0;
  const states = {
    running: run.message ? title(run.message) : `Painting${tenths ? `, ${tenths}0 percent` : ""}`,
    stopped: run.step ? `Stopped after step ${run.step}` : "Stopped",
    finished: "Finished",
  };
  // A screen reader is told of every tenth, not of every step.
  if (spoken !== states[run.phase]) $("status").textContent = spoken = states[run.phase];
  document.title = running && run.total ? `${Math.floor((100 * run.step) / run.total)} % · Studio` : "Studio";
  $("progress").max = run.total || 1;
  if (running && !run.total) $("progress").removeAttribute("value");
  else $("progress").value = run.step;
  const numbers = [run.total && `Step ${run.step} of ${run.total}`];
  if (running && run.time_left) numbers.push(`${run.time_left} left`);
  if (run.seconds) numbers.push(`${Math.round(run.seconds)} s in all`);
  $("numbers").textContent = numbers.filter(Boolean).join(" · ");
  if (run.phase !== (before && before.phase)) $("run-error").textContent = "";
  if (run.phase === "stopped" && run.message && !/stopped/.test(run.message)) {
    $("run-error").textContent = run.message;
  }
  const had = document.activeElement;
  $("stop").hidden = !running;
  $("go-on").hidden = !run.can_go_on;
  const kind = run.pictures.result ? "result" : run.pictures.preview ? "preview" : "";
  $("download").hidden = !kind;
  $("download").textContent = kind === "preview" ? "Download so far" : "Download";
  if (kind) $("download").href = `/runs/${encodeURIComponent(run.name)}/${kind}?download=1`;
  // What had the focus may be gone: its successor takes it.
  if (had && had.hidden) (run.can_go_on ? $("go-on") : running ? $("stop") : $("download")).focus();
  $("words").textContent = run.words;
  $("words").parentElement.hidden = !run.words;
}

function showRuns(runs) {
  $("earlier").hidden = !runs.length || Boolean(choices.watched);
  const current = decodeURIComponent(location.hash.slice(1));
  const list = $("runs");
  const focused = list.contains(document.activeElement) ? document.activeElement.hash : "";
  list.replaceChildren(
    ...runs.map((run) => {
      const kind = ["result", "preview", "content"].find((name) => run.pictures[name]);
      const thumb = make("span", { class: "thumb" });
      if (kind) {
        const src = `/runs/${encodeURIComponent(run.name)}/${kind}?v=${run.pictures[kind]}`;
        thumb.append(make("img", { src, alt: "", loading: "lazy" }));
      }
      const { strength, image_size } = run.settings;
      const small = [run.phase === "finished" ? "" : run.phase, strength && `strength ${strength}`, image_size && `${image_size} px`];
      const link = make("a", { href: `#${encodeURIComponent(run.name)}` }, thumb, describe(run));
      link.append(make("small", {}, small.filter(Boolean).join(", ")));
      if (run.name === current) link.setAttribute("aria-current", "true");
      return make("li", {}, link);
    })
  );
  if (focused) [...list.querySelectorAll("a")].find((link) => link.hash === focused)?.focus();
}

function follow() {
  events?.close();
  clearTimeout(retry);
  const name = decodeURIComponent(location.hash.slice(1));
  events = new EventSource(`/events?run=${encodeURIComponent(name)}`);
  events.onopen = () => ($("connection").textContent = "");
  events.onerror = () => {
    const over = choices.watched && shown && shown.phase === "finished";
    $("connection").textContent = over ? "" : "The studio does not answer; trying again.";
    if (events.readyState === EventSource.CLOSED) retry = setTimeout(follow, 2000);
  };
  events.addEventListener("run", (event) => {
    const run = JSON.parse(event.data);
    if (run) showRun(run);
  });
  events.addEventListener("runs", (event) => showRuns(JSON.parse(event.data)));
}

async function begin() {
  choices = await (await fetch("/choices")).json();
  if (choices.watched) {
    document.body.classList.add("watching");
    $("form").hidden = true;
    document.querySelector("header p").textContent = "A run of the command line";
    if (!location.hash) history.replaceState(null, "", `#${encodeURIComponent(choices.watched)}`);
  } else {
    for (const size of choices.sizes) {
      $("size").append(make("option", { value: size }, `${size} px`));
    }
    $("strength").value = choices.strength;
    $("size").value = choices.size;
    const kept = JSON.parse(sessionStorage.getItem("studio-form") || "null");
    if (kept) ["strength", "size", "method", "steps"].forEach((id, i) => ($(id).value = kept[i]));
    document.querySelector(".more").open = Boolean($("steps").value);
    prepareSource("content");
    prepareSource("style");
    showDial();
    for (const id of ["strength", "size", "method", "steps"]) $(id).addEventListener("input", keepForm);
    $("form").addEventListener("submit", start);
  }
  $("stop").addEventListener("click", () => act("stop"));
  $("go-on").addEventListener("click", () => act("go_on"));
  $("compare").addEventListener("input", compare);
  window.addEventListener("hashchange", () => {
    if (shown && `#${encodeURIComponent(shown.name)}` === location.hash) return;
    follow();
  });
  window.addEventListener("resize", () => $("picture").naturalWidth && fit($("picture")));
  follow();
}

begin();
