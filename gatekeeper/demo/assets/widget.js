/* The widget that a customer embeds:  <script src="https://widgets.example/widget.js" data-client-key="pk_live_…" defer></script>
 *
 * It polls its own service for its config every two seconds, with the client of gatekeeper's loader, which sends the key, or in
 * a frame (data-mode="frame") the grant. It shows the chat (ready), the reason for a refusal (refused), or that no answer came (unreachable). A refusal hides the chat but
 * keeps it, so that nothing the visitor typed is lost.
 * Text from the server enters the page only as textContent. */
(() => {
  "use strict";

  const script = document.currentScript;
  if (!script || document.getElementById("gatekeeper-widget")) return;
  const key = script.dataset.clientKey ?? "";
  const origin = new URL(script.src).origin;
  let client = null;   // of the loader
  const POLL_MS = 2000;
  const TIMEOUT_MS = 30000;   // the loader repeats a request while the gate is not ready

  // --- elements ------------------------------------------------------------------------------------------------------------

  const build = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
  const icon = (path) => {
    const svg = (tag, attributes, ...children) => build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
    return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: path }));
  };

  const avatar = el("span", { class: "avatar", "aria-hidden": "true" });
  const agent = el("h2", { class: "agent" }, "Chat");
  const liveText = el("span", {}, "connecting");
  const live = el("span", { class: "live", "data-live": "off", role: "status" }, liveText);
  const fold = el("button", { class: "fold", type: "button", "aria-label": "Collapse the chat", "aria-expanded": "true" }, icon("M6 9.5l6 6 6-6"));
  const greeting = el("p", { class: "greeting bubble theirs" });
  const messages = el("div", { class: "messages", role: "log", "aria-label": "Messages" });
  const scroller = el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Conversation" }, greeting, messages);
  const input = el("input", { class: "input", type: "text", "aria-label": "Your message", placeholder: "Write a message…", autocomplete: "off", maxlength: "2000" });
  const send = el("button", { class: "send", type: "submit", "aria-label": "Send" }, icon("M12 19V5.5M6 11.5l6-6 6 6"));
  const form = el("form", { class: "form" }, input, send);
  const chat = el("section", { class: "chat panel", "aria-label": "Chat" },
    el("header", {}, avatar, el("div", { class: "who" }, agent, live), fold), scroller, form);

  const refusalTitle = el("h2", { class: "refusal-title" });
  const refusalDetail = el("p", { class: "refusal-detail" });
  const facts = { reason: el("dd", { class: "refusal-reason" }), origin: el("dd", { class: "refusal-origin" }),
                  key: el("dd", { class: "refusal-key" }), status: el("dd", { class: "refusal-status" }) };
  const factList = el("dl", {}, ...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), value)));
  const refusal = el("section", { class: "refusal panel", role: "alert" },
    el("header", {}, icon("M12 3l7.5 3v5.5c0 4.6-3.1 8-7.5 9.5-4.4-1.5-7.5-4.9-7.5-9.5V6zM12 8v4.5M12 16v.1"), refusalTitle),
    refusalDetail, factList, el("p", { class: "again" }, "Retrying every two seconds"));

  const host = el("div", { id: "gatekeeper-widget", "data-state": "loading", "data-reason": "" });
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  root.adoptedStyleSheets = [sheet];
  root.append(chat, refusal);

  // --- state ---------------------------------------------------------------------------------------------------------------

  let turn = 0;             // the number of answers shown: an answer is outdated if another was shown since it was requested
  let wantsFocus = false;   // the visitor was typing when the chat was hidden
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  function show(state, reason = "") {
    turn += 1;
    if (host.dataset.state === "ready" && state !== "ready") wantsFocus = root.activeElement === input;
    if (host.dataset.reason !== reason) host.dataset.reason = reason;
    if (host.dataset.state === state) return;
    host.dataset.state = state;
    if (state !== "ready") return;
    if (wantsFocus && document.activeElement === document.body) input.focus({ preventScroll: true });
    scroller.scrollTop = scroller.scrollHeight;
  }

  function showReady(config) {
    const name = String(config.agent_name || config.agent_id || "Chat");
    put(agent, name);
    put(avatar, [...name][0].toUpperCase());
    put(greeting, String(config.greeting ?? ""));
    show("ready");
    connect();
  }

  function showRefusal(title, detail, problem = {}) {
    put(refusalTitle, title);
    put(refusalDetail, detail);
    for (const [name, node] of Object.entries(facts)) {
      put(node, String(problem[name] ?? ""));
      node.parentNode.hidden = !node.textContent;
    }
    factList.hidden = !problem.reason;
    show(problem.reason ? "refused" : "unreachable", problem.reason);
    disconnect();
  }

  // --- requests ------------------------------------------------------------------------------------------------------------

  async function ask(path, options = {}) {
    try {
      const response = await client.fetch(path, { credentials: "omit", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS), ...options });
      return { ok: response.ok, status: response.status, body: await response.json().catch(() => null) };
    } catch {
      return { ok: false, status: 0, body: null };   // a network error, or an answer that CORS hides from this page
    }
  }

  function showFailure({ status, body }) {
    if (typeof body?.reason === "string" && body.reason) {
      showRefusal(String(body.title ?? "The widget was refused"), String(body.detail ?? ""), { status, ...body });
    } else {
      showRefusal("The widget service cannot be reached",
        status ? `${origin} answered ${status} with something that the widget cannot read.` : `No readable answer came from ${origin}. Is it running?`);
    }
  }

  async function poll() {
    const asked = turn;
    const answer = await ask("/api/v1/widget/config");
    if (asked === turn) {
      if (answer.ok && answer.body) showReady(answer.body);
      else showFailure(answer);
    }
    setTimeout(poll, POLL_MS);
  }

  function say(side, text) {
    const bubble = el("p", { class: `bubble ${side}` }, text);
    messages.append(bubble);
    scroller.scrollTop = scroller.scrollHeight;
    return bubble;
  }

  async function sendMessage(event) {
    event.preventDefault();
    const text = input.value.trim();
    if (!text || send.disabled) return;
    input.value = "";
    send.disabled = true;
    const mine = say("mine", text);
    const typing = el("p", { class: "bubble theirs typing", "aria-label": "Writing" }, el("i"), el("i"), el("i"));
    scroller.append(typing);
    scroller.scrollTop = scroller.scrollHeight;
    const answer = await ask("/api/v1/widget/chat", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ message: text }) });
    typing.remove();
    send.disabled = false;
    if (answer.ok && answer.body) return say("theirs", String(answer.body.reply ?? ""));
    mine.remove();                          // not delivered: give the text back to the visitor
    if (!input.value) input.value = text;
    showFailure(answer);
  }

  let socket = null;
  const setLive = (on) => { live.dataset.live = on ? "on" : "off"; put(liveText, on ? "live" : "offline"); };

  async function connect() {
    if (socket) return;
    const opened = await client.webSocket("/api/v1/widget/live");
    if (socket || host.dataset.state !== "ready") return opened.close();   // another was faster, or a refusal came
    socket = opened;
    opened.onopen = () => opened.send("ping");
    opened.onmessage = () => { if (socket === opened) setLive(true); };
    opened.onclose = () => { if (socket === opened) disconnect(); };   // the next successful poll reconnects
  }

  function disconnect() {
    const closing = socket;
    socket = null;
    closing?.close();
    setLive(false);
  }

  // --- styles --------------------------------------------------------------------------------------------------------------

  sheet.replaceSync(`
    :host { all: initial; position: fixed; right: 16px; bottom: 20px; z-index: 2147483000; width: min(344px, calc(100vw - 24px)); color-scheme: light dark;
      font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: var(--ink);
      --ink: #1c2033; --soft: #646a82; --paper: #fff; --wash: #f1f2f9; --line: #e1e3ef; --accent: #4340c4; --deep: #2f2b94; --ring: #4340c4;
      --warn: #a3360b; --warn-deep: #7f2507; --warn-paper: #fff8ef; --warn-line: #f0b27a; --warn-ink: #4a1d08; --warn-wash: #fdebd5; }
    @media (prefers-color-scheme: dark) { :host {
      --ink: #eceefa; --soft: #a3a9c4; --paper: #191b2b; --wash: #272a40; --line: #34384f; --accent: #5a57de; --deep: #3a37a6; --ring: #aeb0ff;
      --warn: #b4430f; --warn-deep: #86300a; --warn-paper: #2a1a12; --warn-line: #a85a26; --warn-ink: #ffe3cc; --warn-wash: #3d2516; } }
    @media (max-width: 480px) { :host { right: 12px; bottom: 12px; } }
    * { box-sizing: border-box; margin: 0; font: inherit; color: inherit; }
    [hidden], :host([data-state="refused"]) .chat, :host([data-state="unreachable"]) .chat, :host(:is([data-state="ready"], [data-state="loading"])) .refusal { display: none; }
    .panel { border-radius: 18px; overflow: hidden; background: var(--paper); box-shadow: 0 0 0 1px var(--line), 0 2px 6px rgb(10 14 40 / .12), 0 18px 48px rgb(10 14 40 / .28); animation: rise .28s ease-out; }
    .chat { display: flex; flex-direction: column; height: min(496px, calc(100vh - 40px)); }
    @media (max-width: 480px) { .chat { height: min(496px, 60vh); } }
    .chat.folded { height: auto; } .folded :is(.scroller, .form) { display: none; } .folded .fold svg { transform: rotate(180deg); }
    header { display: flex; align-items: center; gap: 12px; padding: 14px 16px; color: #fff; background: linear-gradient(135deg, var(--accent), var(--deep)); }
    h2 { font-weight: 650; font-size: 16px; line-height: 1.3; overflow-wrap: anywhere; }
    svg { width: 22px; height: 22px; flex: none; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; display: block; }
    .avatar { width: 40px; height: 40px; flex: none; display: grid; place-items: center; border-radius: 50%; font-weight: 700; font-size: 17px; background: rgb(255 255 255 / .18); }
    .who { flex: 1; min-width: 0; }
    .live { display: flex; align-items: center; gap: 6px; font-size: 13px; line-height: 1.3; color: rgb(255 255 255 / .86); }
    .live::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: #b6b8d8; }
    .live[data-live="on"]::before { background: #5ff0a0; animation: pulse 2.4s ease-out infinite; }
    button { border: 0; cursor: pointer; display: grid; place-items: center; width: 40px; height: 40px; flex: none; border-radius: 12px; background: none; }
    .fold:hover { background: rgb(255 255 255 / .16); }
    .scroller { flex: 1; overflow-y: auto; overscroll-behavior: contain; display: flex; flex-direction: column; gap: 8px; padding: 16px; }
    .messages { display: flex; flex-direction: column; gap: 8px; }
    .bubble { max-width: 86%; padding: 9px 13px; border-radius: 16px; overflow-wrap: anywhere; white-space: pre-wrap; }
    .theirs { align-self: flex-start; background: var(--wash); border-bottom-left-radius: 5px; }
    .mine { align-self: flex-end; background: var(--accent); color: #fff; border-bottom-right-radius: 5px; }
    .greeting:empty, :host([data-state="loading"]) .greeting { display: none; }
    .typing { display: flex; gap: 5px; padding: 14px; } .typing i { width: 7px; height: 7px; border-radius: 50%; background: var(--soft); animation: blink 1.2s infinite; }
    .typing i:nth-child(2) { animation-delay: .15s; } .typing i:nth-child(3) { animation-delay: .3s; }
    .form { display: flex; gap: 8px; padding: 12px; border-top: 1px solid var(--line); }
    .input { flex: 1; min-width: 0; height: 40px; padding: 0 13px; border: 1px solid var(--line); border-radius: 12px; background: var(--wash); }
    .input::placeholder { color: var(--soft); opacity: 1; }
    .send { background: var(--accent); color: #fff; } .send:hover { background: var(--deep); } .send:disabled, :host([data-state="loading"]) .send { opacity: .5; cursor: default; }
    :focus-visible { outline: 2px solid var(--ring); outline-offset: 2px; } .input:focus-visible { outline-offset: -1px; } header :focus-visible { outline-color: #fff; outline-offset: -3px; } .scroller:focus-visible { outline-offset: -3px; }
    .refusal { background: var(--warn-paper); color: var(--warn-ink); box-shadow: 0 0 0 2px var(--warn-line), 0 18px 48px rgb(70 24 4 / .34); }
    .refusal header { background: linear-gradient(135deg, var(--warn), var(--warn-deep)); } .refusal header svg { width: 28px; height: 28px; }
    .refusal-detail { padding: 16px 16px 0; overflow-wrap: anywhere; } .refusal-detail:empty { display: none; }
    dl { margin: 14px 16px 0; padding: 10px 12px; border-radius: 12px; background: var(--warn-wash); display: grid; gap: 5px; font-size: 13px; }
    dl div { display: grid; grid-template-columns: 52px 1fr; align-items: baseline; }
    dd { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: 12.5px; overflow-wrap: anywhere; }
    .refusal-reason { font-weight: 700; }
    .again { padding: 12px 16px 14px; font-size: 12.5px; opacity: .82; }
    @keyframes rise { from { opacity: 0; transform: translateY(10px); } }
    @keyframes pulse { from { box-shadow: 0 0 0 0 rgb(95 240 160 / .7); } 60%, to { box-shadow: 0 0 0 7px rgb(95 240 160 / 0); } }
    @keyframes blink { 0%, 60%, 100% { opacity: .3; } 30% { opacity: 1; } }
    @media (prefers-reduced-motion: reduce) { *, *::before { animation: none !important; } }`);

  fold.addEventListener("click", () => fold.setAttribute("aria-expanded", String(!chat.classList.toggle("folded"))));
  form.addEventListener("submit", sendMessage);

  async function start() {
    const isFramed = script.dataset.mode === "frame";
    document.body.append(host);
    if (!isFramed && !key) {
      return showRefusal("No client key", 'The script tag names no client key. Put data-client-key="pk_live_…" on it.', { reason: "key_missing" });
    }
    try {
      client = isFramed ? window.gatekeeper : (await import(`${origin}/gatekeeper/widget.mjs`)).mount({ key });
    } catch {
      return showFailure({ status: 0 });
    }
    poll();
  }
  if (document.body) start();
  else document.addEventListener("DOMContentLoaded", start, { once: true });
})();
