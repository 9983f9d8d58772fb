/* The loader on the customer's page, as a module. See "The loader" in gatekeeper/web/README.md.
 *
 * Its service is the one that it was loaded from. Nothing here writes to the page's markup, styles or storage, and no key
 * is logged. */

const MAX_REPEATS = 10; // of a request that the gate cannot decide yet
const MAX_WAIT = 60; // seconds between two of them
const REVOKED = [1008, 3003]; // codes with which the gate closes an open WebSocket
const service = new URL(import.meta.url).origin;
const told = new Set(); // "key, reason" of the refusals in the console

/* Put a widget into the page.
 *
 * key: the client key.
 * agent: the agent that the page asks for; a key that is pinned to an agent keeps its own.
 * target: the element to which the frame is appended.
 * mode: "script" for a client for the page's own scripts, "frame" for an iframe.
 * framePath: the path of the frame's document, or its URL on another host.
 * grantPath: the service's `grant_path`, for a frame whose document has no grant.
 * title: the frame's name for assistive technology.
 *
 * Returns {agent, fetch, eventSource, webSocket, destroy} or {frame, destroy}. Throws a TypeError for a missing key, another
 * mode, a framePath that is no http(s) URL, and a grantPath on another host. */
export function mount({
  key = "",
  agent,
  target = document.body,
  mode = "script",
  framePath = "/embed",
  grantPath,
  title = "Widget",
} = {}) {
  if (mode !== "script" && mode !== "frame") throw new TypeError(`mode is "${mode}": expected "script" or "frame"`);
  if (!key) throw new TypeError('the client key is missing: expected data-client-key="pk_live_…" or mount({ key })');
  const ending = new AbortController();
  const client = connect(key, ending.signal);
  const destroy = () => ending.abort();
  if (mode === "script") {
    const { fetch, eventSource, webSocket } = client;
    return { agent, fetch, eventSource, webSocket, destroy };
  }
  const url = new URL(framePath, service);
  if (!["http:", "https:"].includes(url.protocol)) {
    throw new TypeError(`framePath is "${framePath}": expected a path, or an http(s) URL`);
  }
  const grantUrl = grantPath && locate(grantPath);
  url.searchParams.set("client_key", key);
  if (agent) url.searchParams.set("agent", agent);
  const frame = document.createElement("iframe");
  frame.className = "gatekeeper-widget";
  frame.title = title;
  frame.referrerPolicy = "strict-origin-when-cross-origin"; // the page's own policy may hide the page
  frame.src = url.href;
  if (grantUrl) handGrants(frame, url, () => client.ask(grantUrl), ending.signal);
  ending.signal.addEventListener("abort", () => frame.remove());
  target.append(frame);
  return { frame, destroy };
}

/* Hand grants to a frame: one whenever it asks for one, and one whenever its document has loaded. */
function handGrants(frame, url, ask, signal) {
  let running = false;
  let hasAsked = false;
  let hasLoaded = false;

  async function hand() {
    if (running) return;
    running = true;
    try {
      const answer = await ask();
      if (!answer.ok) return;
      const { grant } = await answer.json();
      if (signal.aborted) return;
      // A document that was refused, as while the gate could not decide, is loaded again by its Refresh, and has a grant then.
      frame.contentWindow?.postMessage({ type: "gatekeeper.grant", grant }, url.origin);
    } catch {
      // The browser's console says why a request has failed.
    } finally {
      running = false;
    }
  }

  function receive({ source, origin, data }) {
    if (source !== frame.contentWindow || origin !== url.origin) return;
    if (data?.type !== "gatekeeper.grant_wanted") return;
    hasAsked = true;
    hand();
  }

  frame.addEventListener("load", () => {
    // A first document that has asked has its grant, or asks again.
    if (hasLoaded || !hasAsked) hand();
    hasLoaded = true;
  });
  window.addEventListener("message", receive);
  signal.addEventListener("abort", () => window.removeEventListener("message", receive));
}

/* A client of the service that sends the key. */
function connect(key, signal) {
  const open = new Set();

  async function ask(path, options, repeats = MAX_REPEATS) {
    // A redirect could lead to another host, and the key with it.
    const request = new Request(locate(path), { signal, ...options, redirect: "error" });
    request.headers.set("data-client-key", key);
    for (let count = 0; ; count += 1) {
      const answer = await fetch(request.clone());
      const problem = await problemOf(answer);
      if (problem) tell(key, problem);
      // A refused request has not reached the app, so it is safe to repeat.
      if (!problem || answer.status !== 503 || count >= repeats) return answer;
      await wait(Math.min(problem.retry_after || 1, MAX_WAIT), request.signal);
    }
  }

  /* Say in the console why a stream was refused, which the stream itself does not tell. */
  async function explain(path) {
    try {
      const answer = await ask(path, {}, 0);
      await answer.body?.cancel();
    } catch {
      // The service cannot be reached, or the widget is gone.
    }
  }

  function keep(stream, ends) {
    open.add(stream);
    stream.addEventListener(ends, () => stream.readyState === stream.CLOSED && open.delete(stream));
    if (signal.aborted) stream.close();
    return stream;
  }

  function withKey(path) {
    const url = locate(path);
    url.searchParams.set("client_key", key);
    return url;
  }

  async function eventSource(path) {
    const events = keep(new EventSource(withKey(path)), "error");
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) explain(path);
    });
    return events;
  }

  async function webSocket(path, protocols = []) {
    const url = withKey(path);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = keep(new WebSocket(url, protocols), "close");
    let opened = false;
    socket.addEventListener("open", () => (opened = true));
    socket.addEventListener("close", ({ code }) => {
      if (!signal.aborted && (!opened || REVOKED.includes(code))) explain(path);
    });
    return socket;
  }

  signal.addEventListener("abort", () => open.forEach((stream) => stream.close()));
  return { ask, eventSource, webSocket, fetch: (path, options) => ask(path, options) };
}

/* The URL of a path of the service. The key is sent nowhere else. */
function locate(path) {
  const url = new URL(path, service);
  if (url.origin !== service) throw new TypeError(`${url.origin} is not the widget's service, ${service}`);
  return url;
}

/* The gate's refusal in an answer, or null. */
async function problemOf(answer) {
  if (answer.ok || answer.headers.get("content-type") !== "application/problem+json") return null;
  const problem = await answer.clone().json().catch(() => null);
  return problem?.type === `urn:gatekeeper:${problem?.reason}` ? problem : null;
}

function tell(key, { reason, detail }) {
  const refusal = `${key}, ${reason}`;
  if (!told.has(refusal)) console.warn(`gatekeeper: ${detail}`);
  told.add(refusal);
}

function wait(seconds, signal) {
  return new Promise((resume) => {
    setTimeout(resume, 1000 * seconds);
    signal.addEventListener("abort", resume, { once: true });
  });
}
