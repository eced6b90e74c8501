"use strict";
// What is live on the page. Everything else works without this.

const by = (selector) => document.querySelector(selector);

function live() {
  const rows = by("[data-live]");
  const reload = by("[data-reload]");
  if (!rows && !reload) return;
  let waiting = 0;
  async function refresh() {
    waiting = 0;
    if (document.hidden) return;
    const answer = await fetch(rows ? rows.dataset.live : location.href);
    if (!answer.ok) return;
    const text = await answer.text();
    if (rows) { rows.innerHTML = text; filter(); return; }
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-reload]");
    if (fresh && !reload.querySelector("details[open]")) reload.innerHTML = fresh.innerHTML;
  }
  const soon = () => { waiting = waiting || setTimeout(refresh, 300); };
  const source = new EventSource("/v1/events");
  for (const kind of ["machine", "operation", "gap"]) source.addEventListener(kind, soon);
  setInterval(soon, 5000);
}

function filter() {
  const field = by("#find");
  if (!field) return;
  const wanted = field.value.toLowerCase();
  for (const row of document.querySelectorAll("tr[data-name]")) row.hidden = !row.dataset.name.includes(wanted);
}

function keys() {
  by("#find")?.addEventListener("input", filter);
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select, .terminal, .screen") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && by("#find")) { event.preventDefault(); by("#find").focus(); }
    if (event.key === "n" && by('nav a[href="/new"]')) location.href = "/new";
  });
}

function confirmed() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-confirm]");
    if (button && !confirm(button.dataset.confirm)) event.preventDefault();
  });
}

async function operation() {
  const shown = by("[data-operation]");
  if (!shown) return;
  for (;;) {
    const answer = await fetch(`/v1/operations/${shown.dataset.operation}?wait=10`);
    if (!answer.ok) { shown.textContent = `It cannot be asked about: ${answer.status}`; return; }
    const told = await answer.json();
    if (told.state === "running") { shown.textContent = `${told.verb}: ${told.progress.text || "under way"}…`; continue; }
    const state = by("#state");
    if (told.state === "done" && state) {
      const clean = new URL(location.href);
      clean.searchParams.delete("operation");
      clean.searchParams.set("ended", told.id);
      location.replace(clean);
      return;
    }
    shown.textContent = `${told.verb} ${told.state}: ${[told.error?.error, told.error?.why, told.error?.fix].filter(Boolean).join("; ")}`;
    return;
  }
}

async function stats() {
  const cpu = by("[data-stats]");
  if (!cpu) return;
  const answer = document.hidden ? null : await fetch(`/v1/machines/${cpu.dataset.stats}/stats`);
  if (answer?.ok) {
    const told = await answer.json();
    const percent = told.cpu?.percent;
    cpu.textContent = percent == null ? "" : `${percent} % of ${told.cpu.vcpus}`;
    const rss = told.memory?.host?.rss;
    by("#memory").textContent = rss ? `${Math.round(rss / 1048576)} MiB of ${Math.round((told.memory.size || 0) / 1048576)} MiB` : "";
  }
  setTimeout(stats, 3000);
}

async function loaded(place) {
  const answer = document.hidden ? null : await fetch(place.dataset.load).catch(() => null);
  if (answer?.ok) { const text = await answer.text(); if (text !== place.innerHTML) place.innerHTML = text; }
  setTimeout(loaded, 1000 * place.dataset.every, place);
}

function dropped() {
  const form = by("[data-put]");
  form?.addEventListener("dragover", (event) => event.preventDefault());
  form?.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files.length) return;
    form.elements.file.files = event.dataTransfer.files;
    form.requestSubmit();
  });
}

function commands() {
  by("[data-run]")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    by("#ran").textContent = "…";
    const body = JSON.stringify({ argv: ["sh", "-c", form.elements.command.value] });
    const answer = await fetch(`/v1/machines/${form.dataset.run}/run`, { method: "POST", headers: { "content-type": "application/json" }, body });
    const told = await answer.json();
    by("#ran").textContent = answer.ok ? `${told.out}${told.err}\n[${told.status}]` : [told.error, told.why, told.fix].filter(Boolean).join("\n");
  });
  by("[data-put]")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const file = form.elements.file.files[0];
    const path = form.elements.path.value;
    const shown = form.querySelector("[role=status]");
    shown.textContent = "…";
    const where = encodeURIComponent(path.endsWith("/") ? path + file.name : path);
    const answer = await fetch(`/v1/machines/${form.dataset.put}/files?path=${where}`, { method: "PUT", body: file });
    const told = await answer.json();
    shown.textContent = answer.ok ? `${told.bytes} bytes, ${told.verified ? "checked" : "not checked"}` : told.error;
  });
}

function events() {
  const list = by("#events");
  if (!list) return;
  const source = new EventSource(`/v1/events?after=${list.dataset.after}`);
  source.onopen = () => { by("#listening").textContent = "listening"; };
  source.onerror = () => { by("#listening").textContent = "the service is away; trying again"; };
  for (const kind of ["machine", "operation", "qemu", "tidied", "gap"]) {
    source.addEventListener(kind, (event) => {
      const told = JSON.parse(event.data);
      const line = document.createElement("li");
      const data = told.data || told;
      const words = [data.verb, data.event, data.state, data.text, data.progress?.text, data.error?.error].filter(Boolean).join(" ");
      line.textContent = `${told.at ? new Date(told.at * 1000).toLocaleTimeString() : ""} ${kind} ${told.about || ""} ${words}`;
      list.prepend(line);
      while (list.children.length > 500) list.lastChild.remove();
    });
  }
}

live(); keys(); confirmed(); operation(); stats(); events(); commands(); dropped(); document.querySelectorAll("[data-load]").forEach((place) => loaded(place));
