"use strict";
// Everything that comes from the proxy is set as text, never as markup.
const at = (id) => document.getElementById(id);

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (kind) made.className = kind;
  return made;
}

function row(cells, header) {
  const made = document.createElement("tr");
  for (const cell of cells) {
    const box = document.createElement(header ? "th" : "td");
    if (cell instanceof Node) box.append(cell);
    else box.textContent = String(cell ?? "");
    made.append(box);
  }
  return made;
}

let token = "";
async function act(service, id, action) {
  const path = `/v1/instances/${encodeURIComponent(service)}/${encodeURIComponent(id)}/${action}`;
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method: "POST", headers });
  if (answer.status === 401 && (token = prompt("admin token") || "")) return act(service, id, action);
  if (!answer.ok) alert((await answer.json()).error);
  return refresh();
}

function labels(of) {
  const box = element("span");
  for (const [key, value] of Object.entries(of)) box.append(element("span", `${key}=${value}`, "label"));
  return box;
}

function state(instance) {
  const words = [instance.health.state];
  if (instance.health.state === "ejected") words.push(`${Math.ceil(instance.health.left_ms / 1000)} s left`);
  if (instance.drained) words.push("drained");
  if (instance.check === "failing") words.push("check failing");
  if (instance.status !== "passing") words.push(`catalog: ${instance.status}`);
  const well = instance.available && instance.weight > 0;
  return element("span", words.join(", "), well ? "good" : "bad");
}

function buttons(service, instance) {
  const box = element("span");
  const out = instance.health.state !== "healthy";
  for (const action of [out ? "readmit" : "eject", instance.drained ? "undrain" : "drain"]) {
    const button = element("button", action);
    button.addEventListener("click", () => act(service, instance.id, action));
    box.append(button, " ");
  }
  return box;
}

function shown(service) {
  const box = element("section");
  box.append(element("h2", service.service));
  if (!service.in_catalog) box.append(element("p", "not in the catalog", "bad"));
  for (const file of service.files) {
    const pools = file.pools.map((pool) => `${pool.pool}${pool.variant.length ? `[${pool.variant.join(",")}]` : ""} ${pool.routable}/${pool.members}`);
    box.append(element("p", `${file.file}: ${pools.join(" · ")}`, "dim"));
  }
  const table = element("table");
  table.append(row(["instance", "address", "labels", "weight", "in flight", "state", ""], true));
  for (const one of service.instances) {
    table.append(row([one.id, one.address, labels(one.labels), one.weight, one.in_flight, state(one), buttons(service.service, one)]));
  }
  if (service.instances.length) box.append(table);
  return box;
}

async function refresh() {
  const ready = await (await fetch("/ready")).json();
  at("ready").textContent = (ready.ready ? (ready.degraded ? "degraded" : "ready") : "not ready") + (ready.reasons.length ? `: ${ready.reasons.join("; ")}` : "");
  at("ready").className = ready.ready && !ready.degraded ? "good" : "bad";
  const table = await (await fetch("/v1/table?limit=200")).json();
  at("generation").textContent = `generation ${table.generation}`;
  const wanted = at("filter").value;
  at("services").replaceChildren(...table.services.filter((s) => s.service.includes(wanted)).map(shown));
}

function event(data) {
  const one = JSON.parse(data);
  const where = [one.service, one.instance].filter(Boolean).join("/");
  at("events").prepend(element("li", `${one.ts}  ${one.kind}  ${where}  ${one.reason}`));
  while (at("events").children.length > 100) at("events").lastChild.remove();
}

async function follow() {
  const recent = await (await fetch("/v1/events?limit=50")).json();
  recent.events.forEach((one) => event(JSON.stringify(one)));
  const last = recent.events.length ? recent.events[recent.events.length - 1].id : 0;
  const source = new EventSource(`/v1/events?after=${last}`);
  for (const kind of ["ejected", "probing", "readmitted", "eject_refused", "eject_reported", "check_failing", "check_passing", "drained", "undrained", "instance_added", "instance_removed", "instance_changed", "reloaded", "reload_failed", "catalog_held", "catalog_accepted", "catalog_stale", "catalog_recovered", "panic_routing", "ready", "not_ready", "log_lost", "fault"]) {
    source.addEventListener(kind, (message) => event(message.data));
  }
}

at("filter").addEventListener("input", refresh);
refresh();
follow();
setInterval(refresh, 2000);
