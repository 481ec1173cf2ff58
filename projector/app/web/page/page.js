"use strict";
const $ = (id) => document.getElementById(id);
const WINDOW_S = 600, LEAST_S = 120, POLL_MS = 1000;

/* --- figures as text */

const count = (n) => n.toLocaleString("en-US");
const decimals = (n) => n >= 100 || n === 0 ? Math.round(n).toLocaleString("en-US") : n.toPrecision(2).replace(/\.0$/, "");
function time(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0).replace(/\.0$/, "")} s`;
  if (ms < 3600000) return `${Math.floor(ms / 60000)} min ${Math.round(ms % 60000 / 1000)} s`;
  if (ms < 86400000) return `${Math.floor(ms / 3600000)} h ${Math.round(ms % 3600000 / 60000)} min`;
  return `${Math.floor(ms / 86400000)} d ${Math.round(ms % 86400000 / 3600000)} h`;
}
const bytes = (n) => n < 1024 ? `${n} B` : n < 1048576 ? `${(n / 1024).toFixed(1)} kB` : `${(n / 1048576).toFixed(1)} MB`;
const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

function set(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/* --- charts: the last minutes, ten at most */

const samples = []; // [time, events/s, lag, worst, oldest]
let charts = [];

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clock = (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB"));

function visible() {
  const end = Date.now() / 1000, known = samples.length ? end - samples[0][0] / 1000 : 0;
  return [end - Math.min(Math.max(known, LEAST_S), WINDOW_S), end];
}
// Round figures of time, in ms, about ten times as long each.
const STEPS = [1, 10, 100, 1e3, 1e4, 6e4, 6e5, 36e5, 216e5, 864e5, 864e6, 864e7, 864e8];
const steps = (_, axis, low, high) => STEPS.filter((at) => at >= low && at <= high);
function step_label(ms) {
  const units = [[864e5, "d"], [36e5, "h"], [6e4, "min"], [1e3, "s"], [1, "ms"]];
  const [unit, name] = units.find(([unit]) => ms >= unit);
  return `${ms / unit} ${name}`;
}

function chart(into, series, y, scale, splits) {
  const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  return new uPlot({
    width: $(into).clientWidth, height: 200, padding: [10, 34, 0, 0], cursor: { drag: { x: false, y: false } }, legend: { show: false },
    scales: { x: { range: visible }, y: scale },
    axes: [{ ...axis, values: clock, space: 70, size: 28, incrs: [30, 60, 120] }, { ...axis, size: 62, ...(splits && { splits }), values: (_, ticks) => ticks.map((t) => t === null ? "" : y(t)) }],
    series: [{}, ...series.map(([name, fill]) => ({ stroke: color(name), width: 1.5, fill: fill && color(name) + "22", points: { show: false }, spanGaps: false }))],
  }, [[], ...series.map(() => [])], $(into));
}
function make_charts() {
  charts.forEach((each) => each.destroy());
  charts = [];
  if (typeof uPlot === "undefined") {
    document.body.classList.add("no-charts");
    return;
  }
  charts = [
    chart("throughput", [["--blue", true]], decimals, { range: (_, low, high) => [0, Math.max(10, (high || 0) * 1.1)] }),
    // From a few ms to hours: only a logarithm shows both.
    chart("lags", [["--warn"], ["--violet"], ["--blue"]], step_label,
      { distr: 3, range: (_, low, high) => [1, STEPS.find((at) => at >= Math.max(100, high || 0)) || STEPS[STEPS.length - 1]] }, steps),
  ];
  draw();
}
function draw() {
  if (!charts.length) return;
  const x = samples.map((s) => s[0] / 1000);
  const column = (i) => samples.map((s) => s[i] === null ? null : Math.max(s[i], 1));
  charts[0].setData([x, samples.map((s) => s[1])]);
  charts[1].setData([x, samples.map((s) => s[4] >= 1 ? s[4] : null), column(3), column(2)]);
}
function take_samples(fresh) {
  samples.push(...fresh);
  samples.splice(0, Math.max(0, samples.length - WINDOW_S));
  draw();
}

/* --- what is going on, in a sentence or two */

function sentences(live, now) {
  const { status, tenure } = live, said = live.health.map((remark) => ({ ...remark }));
  const say = (level, text) => said.push({ level, text });
  if (live.role === "standby") say(status.projector.state === "running" ? "good" : "warn", status.projector.owner ? `Standing by. ${status.projector.owner} is working.` : "Standing by; no other projector is working.");
  else if (live.role === "working" && tenure.reader === "waiting") say("warn", "The change stream is being reopened.");
  if (!said.some((s) => s.level !== "good") && live.role === "working") {
    say("good", now && now[1] > 0 ? `All is well: ${decimals(now[1])} events/s, ${time(now[2])} behind.` : "All is well. There is nothing to do.");
  }
  return said;
}
function worst(levels) {
  return ["bad", "warn", "good"].find((level) => levels.includes(level)) || "good";
}

/* --- showing */

function show_flow(live, now) {
  const { status, tenure } = live, { outbox } = status, working = live.role === "working";
  const known = live.looked_ms_ago >= 0;
  const waiting = outbox.pending + outbox.in_progress + outbox.failed;
  set("waiting", known ? count(waiting) : "–");
  for (const state of ["pending", "in_progress", "failed", "dead"]) {
    set(state, known ? count(outbox[state]) : "–");
    $(state).className = state === "dead" && outbox.dead ? "bad" : state === "failed" && outbox.failed ? "warn" : "";
  }
  const server = (store) => !known ? "" : store.usable ? store.server : store.reachable ? `${store.server}, refuses to work` : "does not answer";
  set("mongodb_server", server(status.mongodb));
  set("mysql_server", server(status.mysql));
  $("mongodb").className = `box ${known && !status.mongodb.usable ? "bad" : outbox.dead ? "bad" : outbox.failed ? "warn" : ""}`;
  $("mysql").className = `box ${known && !status.mysql.usable ? "bad" : ""}`;
  $("projector").className = `box ${working ? tenure.waiting ? "warn" : "" : "idle"}`;
  set("reader", { scanning: "scanning the outbox", streaming: "following the change stream", waiting: "opening the change stream" }[working ? tenure.reader : ""] || "");
  set("queued", count(tenure.queued));
  set("in_hand", count(tenure.in_hand));
  set("bytes", bytes(tenure.bytes));
  set("held", count(tenure.held));
  set("workers", tenure.waiting ? `${tenure.waiting} of ${tenure.workers} wait for a store` : count(tenure.workers));
  set("owner", status.projector.owner ? `owner ${status.projector.owner}${working ? `, epoch ${tenure.epoch}` : ""}` : "no owner");
  set("rate", now ? decimals(now[1]) : "–");
  set("committed", count(live.committed));
  set("lag", now ? time(now[2]) : "–");
  set("oldest", now && now[4] ? time(now[4]) : "none");
  set("written", known && status.oldest_age_ms ? time(status.oldest_age_ms) : "none");
  set("late", count(live.projections.reduce((sum, p) => sum + p.late, 0)));
  const flows = now && now[1] > 0;
  document.querySelectorAll(".arrow").forEach((arrow) => arrow.classList.toggle("flows", Boolean(flows)));
}
function show_projections(list) {
  const columns = ["applied", "superseded", "ignored", "late", "gaps", "failed", "dead"];
  const rows = list.filter((p) => p.table || columns.some((c) => p[c])).map((p) => {
    const row = make("tr");
    row.append(make("td", "", p.table || "(no projection names them)"), ...columns.map((c) => make("td", p[c] && (c === "dead" ? "bad" : c === "failed" ? "warn" : ""), count(p[c]))));
    return row;
  });
  document.querySelector("#projections tbody").replaceChildren(...rows);
}

/* --- failed and dead events */

const EFFECTS = {
  retry: { title: "Retry this event?", short: "Retry it, with all its attempts", long: "It is retried, with all its attempts. The later events of its aggregate follow if it succeeds." },
  skip: { title: "Skip this event?", short: "Continue without it", long: "It never reaches the read model: the later events of its aggregate continue without it. The ledger records the skip, and the archive keeps the event." },
  refresh: { title: "Refresh this aggregate?", short: "Rewrite the aggregate's rows from its current entity", long: "The rows of its aggregate are rewritten from the current entity. Failed events that the entity contains are superseded." },
};
const items = new Map(); // by the event id and its kind: the list item stays while the event is there

function trouble_item(event) {
  const item = make("li"), act = make("div", "do"), result = make("div", "result");
  const parts = { what: make("div", "what"), why: make("div", "why"), where: make("div", "where") };
  const of_kind = (name, kind) => kind ? { [name]: kind } : {}; // two ids may have the same text
  const this_event = { event_id: event.event_id, ...of_kind("event_id_kind", event.event_id_kind) };
  const buttons = [["Retry", "retry", this_event], ["Skip", "skip", this_event],
    ["Refresh", "refresh", { aggregate_type: event.aggregate_type, aggregate_id: event.aggregate_id, ...of_kind("aggregate_id_kind", event.aggregate_id_kind) }]];
  for (const [label, verb, target] of buttons) {
    const button = make("button", "", label);
    button.dataset.verb = verb;
    button.title = EFFECTS[verb].short;
    button.addEventListener("click", () => decide(verb, target, this_event, act, result));
    act.append(button);
  }
  item.append(parts.what, parts.why, parts.where, act, result);
  return { item, parts, act };
}
function show_troubles(live) {
  const seen = new Set();
  for (const event of live.troubles) {
    const key = `${event.event_id_kind} ${event.event_id}`;
    seen.add(key);
    if (!items.has(key)) items.set(key, trouble_item(event));
    const { item, parts, act } = items.get(key);
    item.className = event.state;
    item.dataset.event = event.event_id;
    const fill = (part, text) => { if (parts[part].textContent !== text) parts[part].textContent = text; };
    fill("what", `${event.event_type || "event without a type"} of ${event.aggregate_type} ${event.aggregate_id}`);
    fill("why", `${event.reason.class}${event.reason.code ? ` ${event.reason.code}` : ""}: ${event.reason.message}`);
    fill("where", `${event.state} after ${plural(event.attempts, "attempt", "attempts")} · ${event.occurred_at || "no time"}${event.version ? ` · version ${event.version}` : ""} · ${event.event_id}`);
    act.hidden = !live.actions || event.state === "refused" || ["unavailable", "space"].includes(event.reason.class); // it only waits for a store
    if (!item.isConnected) $("troubles").append(item);
  }
  for (const [key, { item }] of items)
    if (!seen.has(key)) { item.remove(); items.delete(key); }
  show_kinds(live);
  const { outbox } = live.status, all = outbox.failed + outbox.dead + outbox.future;
  $("no_troubles").hidden = live.troubles.length > 0;
  set("troubles_note", [all > live.troubles.length && live.troubles.length ? `the first ${live.troubles.length} of ${count(all)}` : "",
    live.troubles.length && !live.actions ? "admin_token_file is not set: resolve them with projector retry, skip or refresh" : ""].filter(Boolean).join(" · "));
}

const reason_of = (kind) => kind.class || kind.reason ? `${kind.class}: ${kind.reason}` : "(no reason)";

/* Worth a table when they are many, or more than the list shows. */
let kinds_shown = "";
function show_kinds(live) {
  const kinds = live.kinds || [], text = JSON.stringify([kinds, live.actions]);
  $("kinds_box").hidden = !kinds.some((kind) => kind.count > 1);
  if (text === kinds_shown) return;
  kinds_shown = text;
  document.querySelector("#kinds tbody").replaceChildren(...kinds.map((kind) => {
    const row = make("tr"), act = make("td"), result = make("div", "result");
    row.append(make("td", kind.state === "dead" ? "bad" : "warn", count(kind.count)), make("td", "", kind.state), make("td", "", kind.event_type || "(none)"),
      make("td", "", reason_of(kind)), act);
    if (live.actions && !["unavailable", "space"].includes(kind.class)) {
      const button = make("button", "", "Retry all");
      button.dataset.verb = "retry-kind";
      button.title = "Retry all events of this kind, with all their attempts";
      button.addEventListener("click", () => decide_kind(kind, act, result));
      act.append(button, result);
    }
    return row;
  }));
}

/* --- actions */

function ask_token() {
  const dialog = $("token_dialog");
  $("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok" ? $("token").value : null), { once: true }));
}
async function known_token() {
  return sessionStorage.getItem("token") || await ask_token();
}
async function post(path, token, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Authorization": `Bearer ${token}`, "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const text = await answer.text();
  if (answer.status === 401) sessionStorage.removeItem("token"); else sessionStorage.setItem("token", token);
  return { ok: answer.ok, said: answer.headers.get("Content-Type") === "application/json" ? JSON.parse(text) : { error: text.trim() } };
}
const pretty = (text, cut) => { try { return cut ? `${text}\n…` : JSON.stringify(JSON.parse(text), null, 2); } catch (error) { return text; } };

/* Shows what is decided about; true: the person wants it. */
function confirmed(title, effect, button, event) {
  const dialog = $("decide_dialog");
  set("decide_title", title);
  set("decide_effect", effect);
  set("decide_button", button);
  set("decide_event", event ? `${event.event_type || "event without a type"} of ${event.aggregate_type} ${event.aggregate_id}, ${event.event_id}` : "");
  set("decide_payload", event ? pretty(event.payload, event.cut) : "");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true }));
}
function outcome(verb, said) {
  if (verb === "skip") return "Skipped.";
  if (verb === "retry") return said.count === 1 ? "It will be retried." : `${plural(said.count, "event", "events")} will be retried.`;
  return `The rows are at version ${said.version}.${said.different ? ` Still different (a trigger, or a generated column?): ${said.different}.` : ""}${said.left ? ` ${plural(said.left, "event is", "events are")} not contained in the entity: retry or skip.` : ""}${said.unversioned ? ` ${plural(said.unversioned, "waiting event has", "waiting events have")} no version and may count twice: compare afterwards.` : ""}`;
}
/* `look` gives what the dialog shows, or null when the person need not be asked any more. */
async function act_on(verb, target, act, result, look) {
  const token = await known_token();
  if (!token) return;
  const buttons = act.querySelectorAll("button");
  const tell = (good, text) => { result.className = `result ${good}`; result.textContent = text; };
  buttons.forEach((button) => { button.disabled = true; });
  tell("", "…");
  try {
    const looked = await look(token);
    if (!looked.ok) tell("bad", looked.said.error);
    else if (!await confirmed(looked.title, looked.effect, looked.button, looked.said)) tell("", "");
    else {
      tell("", "…");
      const { ok, said } = await post(verb, token, target);
      tell(ok ? "good" : "bad", said.error || outcome(verb, said));
    }
  } catch (error) {
    tell("bad", "The projector does not answer.");
  }
  buttons.forEach((button) => { button.disabled = false; });
}
function decide(verb, target, event, act, result) {
  const label = { retry: "Retry", skip: "Skip", refresh: "Refresh" }[verb];
  return act_on(verb, target, act, result, async (token) => ({ ...await post("show", token, event), title: EFFECTS[verb].title, effect: EFFECTS[verb].long, button: label }));
}
function decide_kind(kind, act, result) {
  const target = { state: kind.state, event_type: kind.event_type, class: kind.class, reason: kind.reason };
  return act_on("retry", target, act, result, async (token) => {
    const example = await post("show", token, { event_id: kind.example, ...(kind.example_kind ? { event_id_kind: kind.example_kind } : {}) });
    return { ok: example.ok, said: example.said, title: `Retry ${plural(kind.count, "event", "events")} of this kind?`,
      effect: `All ${kind.state} ${kind.event_type ? `${kind.event_type} events` : "events without a type"} with the reason “${reason_of(kind)}” are retried. One of them:`, button: "Retry all" };
  });
}

/* --- pausing, and one aggregate */

let paused = false;
function show_pause(live) {
  paused = Boolean(live.status.paused);
  $("pausing").hidden = $("search_section").hidden = !live.actions;
  set("pause_button", paused ? "Resume" : "Pause");
  $("pause_button").title = paused ? "Apply events again" : "Apply nothing until resumed";
}
async function with_token(result, button, what) {
  const token = await known_token();
  if (!token) return;
  const tell = (good, text) => { result.className = `result ${good}`; result.textContent = text; };
  button.disabled = true;
  tell("", "…");
  try {
    await what(token, tell);
  } catch (error) {
    tell("bad", "The projector does not answer.");
  }
  button.disabled = false;
}
$("pause_button").addEventListener("click", () => with_token($("pause_result"), $("pause_button"), async (token, tell) => {
  const verb = paused ? "resume" : "pause", { ok, said } = await post(verb, token, {});
  tell(ok ? "good" : "bad", said.error || (verb === "pause" ? "Pauses within a few seconds." : "Resumes within a few seconds."));
}));
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  with_token($("search_result"), $("search").querySelector("button"), async (token, tell) => {
    const { ok, said } = await post("explain", token, { aggregate_type: $("search_type").value, aggregate_id: $("search_id").value });
    $("explained").hidden = !ok;
    set("explained", ok ? JSON.stringify(said, null, 2) : "");
    tell(ok ? "" : "bad", ok ? "" : said.error);
  });
});

/* --- polling */

function show(live) {
  show_pause(live);
  take_samples(live.samples);
  const now = samples[samples.length - 1], said = sentences(live, now);
  document.title = `${live.name} · Projector`;
  set("name", live.name);
  set("version", `Projector ${live.version}`);
  const roles = { working: paused ? ["paused", "warn"] : ["working", "good"], standby: ["standing by", "warn"], starting: ["starting", "warn"] };
  const [role, level] = roles[live.role];
  set("role", role);
  $("role").className = `pill ${level}`;
  say(said);
  show_flow(live, now);
  show_projections(live.projections);
  show_troubles(live);
}
function say(said) {
  const text = said.map((s) => s.text).join("\n");
  $("summary").className = `summary ${worst(said.map((s) => s.level))}`;
  if ($("summary").dataset.text === text) return;
  $("summary").dataset.text = text;
  $("summary").replaceChildren(...said.map((s) => make("div", "", s.text)));
}
async function poll() {
  const last = samples.length ? samples[samples.length - 1][0] : 0;
  try {
    const answer = await fetch(`live?after=${last}`, { signal: AbortSignal.timeout(5000) });
    show(await answer.json());
  } catch (error) {
    set("role", "no answer");
    $("role").className = "pill bad";
    say([{ level: "bad", text: "This page's projector does not answer; the figures below are stale." }]);
  }
  setTimeout(poll, document.hidden ? POLL_MS * 10 : POLL_MS);
}

make_charts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", make_charts);
new ResizeObserver(() => charts.forEach((each) => {
  const width = each.root.parentElement.clientWidth;
  if (width && width !== each.width) each.setSize({ width, height: 200 });
})).observe(document.body);
poll();
