// What pages gain by a script: times in the reader's zone, changes as they happen, logs that grow and fold.
// Nothing here asks again and again, and nothing is taken from another host.
"use strict";

const LINES_KEPT = 5000;
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// --- Times -------------------------------------------------------------------------------------------------------

const two = (n) => String(n).padStart(2, "0");
const clock = (at) => `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;

function showTimes(within) {
  for (const time of $$("time[datetime]", within)) {
    if (time.title) continue;
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = time.dateTime;
    time.textContent = time.closest(".lines")
      ? `${clock(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`
      : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(at)}`;
  }
  showElapsed(within);
}

function showElapsed(within = document) {
  for (const span of $$("[data-since]", within)) {
    const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(span.dataset.since)) / 1000));
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    span.textContent = h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
  }
}
setInterval(showElapsed, 1000);

// --- Parts that come anew ----------------------------------------------------------------------------------------

function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// Puts a new content in, and leaves open what was open and focused what was.
function replace(element, html) {
  const open = $$("details[open][id]", element).map((details) => details.id);
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const mark = focused && [focused.tagName, focused.getAttribute("href"), focused.textContent, focused.name];
  element.replaceChildren(fragment(html));
  for (const id of open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  if (mark) {
    const same = $$(mark[0], element).find(
      (e) => e.getAttribute("href") === mark[1] && e.textContent === mark[2] && e.name === mark[3],
    );
    if (same) same.focus();
  }
  showTimes(element);
}

// --- Live --------------------------------------------------------------------------------------------------------

let source = null;

function status(text, kind) {
  const live = $("#live");
  if (!live) return;
  live.dataset.state = kind;
  live.firstElementChild.textContent = text;
}

function connect() {
  const address = document.body.dataset.live;
  if (!address || document.hidden) return;
  if (source) source.close();
  const followed = followedSections();
  source = new EventSource(followed ? `${address}&log=${followed}` : address);
  source.onopen = () => status("Live", "on");
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) {
      status("Not live: reload to see what is new", "off");
    } else {
      status("Connecting again…", "off");
    }
  };
  source.addEventListener("region", (event) => {
    const { id, digest, html } = JSON.parse(event.data);
    const element = document.getElementById(id);
    if (!element || element.dataset.digest === digest) return;
    element.dataset.digest = digest;
    replace(element, html);
  });
  source.addEventListener("section", (event) => showSection(JSON.parse(event.data)));
  source.addEventListener("log", (event) => addLines(JSON.parse(event.data)));
  source.addEventListener("reload", () => location.reload());
  // Parts may have come or gone while nobody listened.
  source.addEventListener("parts", (event) => {
    const here = $$("main > [data-digest]").map((element) => element.id);
    if (JSON.parse(event.data).ids.join() !== here.join()) location.reload();
  });
  source.addEventListener("gone", (event) => {
    source.close();
    status(JSON.parse(event.data).message, "off");
  });
}

// Browsers allow few connections to one host: a page that nobody sees needs none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    if (source) source.close();
    source = null;
    status("Paused", "off");
  } else {
    connect();
  }
});

// --- Logs --------------------------------------------------------------------------------------------------------

const follows = () => $("#follow")?.checked ?? false;

const isAtEnd = (ol) => "end" in ol.dataset;

function setEnd(ol, isEnd) {
  if (isEnd) ol.dataset.end = "";
  else delete ol.dataset.end;
}

function followedSections() {
  return $$("details.section[open]")
    .map((details) => [details.dataset.section, $("ol", details)])
    .filter(([, ol]) => ol && isAtEnd(ol))
    .map(([section, ol]) => `${section}.${ol.dataset.next}`)
    .join(",");
}

function showSection({ id, summary, wanted, html }) {
  const known = document.getElementById(id);
  // The page came before its log was looked at: it has nothing open yet.
  const looking = $("#log-looking");
  if (known) {
    $("summary", known).replaceChildren(fragment(summary));
    showTimes(known.firstElementChild);
    if (looking && wanted) {
      looking.remove();
      known.open = true;
    }
    return;
  }
  const sections = $("#log-sections");
  if (!sections) return;
  sections.append(fragment(html));
  $("#log-empty")?.remove();
  const details = document.getElementById(id);
  showTimes(details);
  if (follows() || (looking && wanted)) details.open = true;
  if (wanted) looking?.remove();
}

// A part of a page as text; null if there is none, or the session is over.
async function fetchPart(address) {
  const response = await fetch(address);
  // To the page that asks who it is: it belongs in the whole window.
  if (response.redirected) location.reload();
  return response.ok && !response.redirected ? response.text() : null;
}

// Fetches lines of a section into its place.
async function load(details, from) {
  const run = location.pathname;
  const query = from ? `?from=${from}` : "";
  const text = await fetchPart(`${run}/log/${details.dataset.section}${query}`);
  if (text === null) return;
  const lines = $(".lines", details);
  replace(lines, text);
  details.dataset.loaded = "true";
}

async function loadMore(link) {
  const details = link.closest("details.section");
  const ol = $("ol", details);
  const first = Number(ol.dataset.first);
  const isEarlier = "earlier" in link.dataset;
  const from = isEarlier ? link.dataset.earlier : link.dataset.later;
  const text = await fetchPart(`${location.pathname}/log/${details.dataset.section}?from=${from}`);
  if (text === null) return;
  const more = fragment(text);
  const added = $("ol", more);
  if (!added) return;
  if (isEarlier) {
    const top = ol.firstElementChild;
    const before = top ? top.getBoundingClientRect().top : 0;
    const items = [...added.children].filter((li) => lineOf(li) < first);
    ol.prepend(...items);
    ol.dataset.first = added.dataset.first;
    while (ol.children.length > LINES_KEPT) {
      ol.dataset.next = lineOf(ol.lastElementChild);
      ol.lastElementChild.remove();
      setEnd(ol, false);
    }
    if (top) scrollBy(0, top.getBoundingClientRect().top - before);
  } else {
    for (const li of [...added.children]) put(ol, li);
    ol.dataset.next = added.dataset.next;
    setEnd(ol, isAtEnd(added));
    trimStart(ol);
  }
  pagers(details);
  showTimes(ol);
  connect();
}

const lineOf = (li) => Number(li.id.slice(li.id.indexOf("-") + 1));

// A line that went on comes again, and takes its old place.
function put(ol, li) {
  const known = document.getElementById(li.id);
  if (known) known.replaceWith(li);
  else ol.append(li);
}

function trimStart(ol) {
  while (ol.children.length > LINES_KEPT) ol.firstElementChild.remove();
  if (ol.firstElementChild) ol.dataset.first = lineOf(ol.firstElementChild);
}

// The links to what comes before and after the lines that are there.
function pagers(details) {
  const ol = $("ol", details);
  const section = details.dataset.section;
  const link = (name, from, text) => {
    const p = document.createElement("p");
    const a = document.createElement("a");
    p.className = "pager";
    a.href = `?log=${section}&from=${from}#log-${section}`;
    a.dataset[name] = from;
    a.textContent = text;
    p.append(a);
    return p;
  };
  $$(".pager", details).forEach((pager) => pager.remove());
  const first = Number(ol.dataset.first);
  if (first > 1) ol.before(link("earlier", Math.max(1, first - 500), "Earlier lines"));
  if (!isAtEnd(ol)) ol.after(link("later", ol.dataset.next, "Later lines"));
}

function addLines({ section, next, isEnd, skips, first, html }) {
  const details = document.getElementById(`log-${section}`);
  const ol = details && $("ol", details);
  if (!ol) return;
  const wasAtBottom = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
  if (skips) {
    ol.replaceChildren();
    ol.dataset.first = first;
  }
  for (const li of [...fragment(html).children]) put(ol, li);
  ol.dataset.next = next;
  setEnd(ol, isEnd);
  trimStart(ol);
  pagers(details);
  showTimes(ol);
  if (follows() && (wasAtBottom || ol.contains(document.activeElement))) {
    details.scrollIntoView({ block: "end" });
  }
}

document.addEventListener(
  "toggle",
  async (event) => {
    const details = event.target;
    if (!(details instanceof HTMLElement) || !details.matches("details.section") || !details.open) return;
    if (!$("ol", details) && !details.dataset.loaded) await load(details, "");
    connect();
  },
  true,
);

document.addEventListener("click", async (event) => {
  if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("a");
  if (!link) return;
  if ("open" in link.dataset) {
    const details = document.getElementById(`log-${link.dataset.open}`);
    if (!details) return;
    event.preventDefault();
    details.open = true;
    history.replaceState(null, "", link.getAttribute("href"));
    details.scrollIntoView({ block: "start" });
    $("summary", details).focus();
  } else if (link.dataset.earlier || link.dataset.later) {
    event.preventDefault();
    await loadMore(link);
  } else if ("from" in link.dataset) {
    event.preventDefault();
    await load(link.closest("details.section"), link.dataset.from);
    connect();
  } else if (link.matches(".lines a.n")) {
    event.preventDefault();
    history.replaceState(null, "", link.getAttribute("href"));
    markLine();
  }
});

// The line that the address names: `:target` alone would miss it when the address changes without a jump.
function markLine() {
  $$("li.here").forEach((li) => li.classList.remove("here"));
  const line = /^#L\d+-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  if (line) line.classList.add("here");
  return line || null;
}
addEventListener("hashchange", markLine);

document.addEventListener("change", (event) => {
  if (event.target.id === "wrap") $(".log").classList.toggle("nowrap", !event.target.checked);
});

// --- Pages -------------------------------------------------------------------------------------------------------

// A part that takes its time is fetched after the rest is shown.
async function loadParts() {
  for (const place of $$("[data-load]")) {
    const text = await fetchPart(place.dataset.load);
    if (text === null) continue;
    const page = fragment(text);
    const part = page.getElementById(place.dataset.part);
    if (part) {
      place.replaceChildren(...part.childNodes);
      showTimes(place);
    }
  }
}

// A sign-in link carries its code in the fragment, which browsers keep to themselves.
function signIn() {
  const form = $("#sign-in");
  const code = location.hash.slice(1);
  if (!form || !/^[0-9a-f]{64}$/.test(code)) return;
  history.replaceState(null, "", location.pathname + location.search);
  $("#secret").value = code;
  form.requestSubmit();
}

document.documentElement.classList.add("scripts");
signIn();
showTimes(document);
// What comes later must not keep the first paint waiting.
requestAnimationFrame(() => setTimeout(() => {
  loadParts();
  connect();
}));
markLine()?.scrollIntoView({ block: "center" });
