"use strict";
// A machine's console, shells and screen: each socket is opened with a ticket of its own.

async function ticketed(path) {
  const answer = await fetch(`${path}/ticket`, { method: "POST" });
  const told = await answer.json();
  if (!answer.ok) throw new Error([told.error, told.why, told.fix].filter(Boolean).join("; "));
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.host}${path}?ticket=${encodeURIComponent(told.ticket)}`;
}

// Ctrl-] gives the keyboard back to the page, to what was pressed last.
function leaves(element, away) {
  element.addEventListener("keydown", (event) => {
    if (!event.ctrlKey || event.key !== "]") return;
    event.preventDefault();
    event.stopPropagation();
    away();
  }, true);
}

function terminals() {
  let open = null;
  let button = null;
  const said = (text) => { by("#console-said").textContent = text; };
  leaves(by("#console"), () => button?.focus());
  async function begin(pressed, shell) {
    button = pressed;
    open?.close();
    by("#console").replaceChildren();
    const terminal = new Terminal({ cursorBlink: true, screenReaderMode: true });
    const fit = new FitAddon.FitAddon();
    terminal.loadAddon(fit);
    terminal.open(by("#console"));
    fit.fit();
    const size = () => [terminal.cols, terminal.rows];
    const name = shell ? pressed.dataset.shell : pressed.dataset.console;
    let address;
    try { address = await ticketed(`/v1/machines/${encodeURIComponent(name)}/${shell ? "exec" : "console"}`); } catch (error) { said(error.message); return; }
    const socket = open = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (shell) socket.send(JSON.stringify({ argv: ["sh", "-l"], terminal: size() }));
      else socket.send(JSON.stringify({ resize: size() }));
      said("attached");
      terminal.focus();
    };
    socket.onmessage = (event) => {
      if (typeof event.data !== "string") { terminal.write(new Uint8Array(event.data).subarray(shell ? 1 : 0)); return; }
      const told = JSON.parse(event.data);
      if (told.problem) said([told.problem.error, told.problem.why, told.problem.fix].filter(Boolean).join("; "));
      if ("exit" in told) said(`it ended with ${told.exit}`);
    };
    socket.onclose = (event) => { if (by("#console-said").textContent === "attached") said(`detached ${event.reason}`); };
    terminal.onData((text) => {
      const bytes = new TextEncoder().encode(text);
      socket.send(shell ? new Uint8Array([0, ...bytes]) : bytes);
    });
    terminal.onResize(() => { if (socket.readyState === 1) socket.send(JSON.stringify({ resize: size() })); });
    addEventListener("resize", () => fit.fit());
  }
  by("[data-console]")?.addEventListener("click", (event) => begin(event.target, false));
  by("[data-shell]")?.addEventListener("click", (event) => begin(event.target, true));
}

function screen() {
  const button = by("[data-screen]");
  if (!button) return;
  const said = (text) => { by("#screen-said").textContent = text; };
  const keys = by("[data-keys]");
  let shown = null;
  leaves(by("#screen"), () => { shown?.blur(); button.focus(); });
  keys.addEventListener("click", () => { shown?.sendCtrlAltDel(); shown?.focus(); });
  button.addEventListener("click", async () => {
    said("…");
    shown?.disconnect();
    try {
      const { default: RFB } = await import("/static/novnc/core/rfb.js");
      const rfb = shown = new RFB(by("#screen"), await ticketed(`/v1/machines/${encodeURIComponent(button.dataset.screen)}/screen`), { shared: true });
      rfb.scaleViewport = true;
      rfb.addEventListener("connect", () => { said("shown; Ctrl-] leaves it"); keys.hidden = false; rfb.focus(); });
      rfb.addEventListener("disconnect", (event) => {
        if (shown !== rfb) return;
        said(event.detail.clean ? "it ended" : "it broke off");
        keys.hidden = true;
      });
    } catch (error) { said(error.message); }
  });
}

if (by("#console")) terminals();
screen();
