/* The loader inside the widget's frame. See "The loader" in gatekeeper/web/README.md.
 *
 *   <script src="/gatekeeper/frame.js" data-grant="…"></script>
 *
 * It keeps the frame's grant, and offers `gatekeeper.fetch`, `gatekeeper.eventSource` and `gatekeeper.webSocket`, which send
 * it. Without the attribute, it asks the page for a grant. */
(() => {
  "use strict";

  const MAX_GRANT_WAIT = 30_000; // milliseconds for which a request waits for a grant of the page
  const MAX_REPEATS = 10; // of a request that the gate cannot decide yet
  const MAX_WAIT = 60; // seconds between two of them
  const MIN_LIFE = 60_000; // milliseconds for which a reloaded document stays, so that reloads never form a loop
  const PAGE = 3; // the place of the page's origin in a grant
  const ENDED = ["grant_expired", "grant_invalid"]; // the reasons for which a grant is replaced
  const REVOKED = [1008, 3003]; // codes with which the gate closes an open WebSocket

  const script = document.currentScript;
  if (!script) {
    console.warn("gatekeeper: load frame.js with a <script> tag that has no type");
    return;
  }
  const service = new URL(script.src).origin;
  const templated = script.dataset.grant;
  const isTemplated = Boolean(templated?.includes("."));
  const isUngranted = templated !== undefined && !isTemplated;
  if (isUngranted) {
    console.warn("gatekeeper: data-grant is not a grant: the gate only observes this page, or the path is not in frames=");
  }
  const told = new Set(); // reasons of the refusals in the console
  let grant = isTemplated ? templated : null;
  let page = null; // the origin that has handed over a grant
  let waiting = [];

  /* The page that a grant names. The signature is the service's to verify: a grant that is made up is of no use there. */
  function pageOf(text) {
    const payload = text.slice(0, text.lastIndexOf(".")).replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(atob(payload))[PAGE];
  }

  function receive({ source, origin, data }) {
    if (isTemplated || source !== window.parent || data?.type !== "gatekeeper.grant") return;
    // Some browsers lack ancestorOrigins. There, the document's frame-ancestors header alone keeps it out of other pages.
    const ancestors = [...(location.ancestorOrigins ?? [])];
    if (ancestors.some((ancestor) => ancestor !== origin && ancestor !== location.origin)) return;
    // The page has null where the gate only observes it. Requests go without a grant then.
    if (data.grant !== null) {
      try {
        if (pageOf(data.grant) !== origin) return;
      } catch {
        return; // no grant
      }
      [grant, page] = [data.grant, origin];
    }
    waiting.forEach((resume) => resume());
    waiting = [];
  }

  function askPage() {
    // The message holds no secret, so any page may get it while the frame does not know its page.
    window.parent.postMessage({ type: "gatekeeper.grant_wanted" }, page ?? "*");
  }

  /* The grant, once there is one; null where the gate only observes. */
  async function held(signal) {
    signal?.throwIfAborted();
    if (grant || isUngranted) return grant;
    askPage();
    let timer;
    await new Promise((resume, fail) => {
      waiting.push(resume);
      timer = setTimeout(() => fail(new Error("gatekeeper: the page has handed over no grant")), MAX_GRANT_WAIT);
      signal?.addEventListener("abort", () => fail(signal.reason), { once: true });
    }).finally(() => clearTimeout(timer));
    return grant;
  }

  /* Get a new grant in place of one that has ended. Returns whether to repeat the request. */
  async function replace(ended, signal) {
    if (isTemplated) {
      const [{ type } = {}] = performance.getEntriesByType("navigation");
      if (type !== "reload" || performance.now() > MIN_LIFE) location.reload();
      return false;
    }
    if (grant === ended) grant = null;
    try {
      await held(signal);
    } catch {
      signal.throwIfAborted();
      return false; // the page has handed over no grant
    }
    return true;
  }

  /* The URL of a path of the service. The grant is sent nowhere else. */
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

  function tell({ reason, detail }) {
    if (!told.has(reason)) console.warn(`gatekeeper: ${detail}`);
    told.add(reason);
  }

  function wait(seconds, signal) {
    return new Promise((resume) => {
      setTimeout(resume, 1000 * seconds);
      signal.addEventListener("abort", resume, { once: true });
    });
  }

  async function ask(path, options, repeats = MAX_REPEATS) {
    // A redirect could lead to another host, and the grant with it.
    const request = new Request(locate(path), { ...options, redirect: "error" });
    let replaced = false;
    for (let count = 0; ; ) {
      const sent = await held(request.signal);
      if (sent) request.headers.set("data-client-grant", sent);
      const answer = await fetch(request.clone());
      const renewed = answer.headers.get("data-client-grant");
      if (renewed && grant === sent) grant = renewed;
      const problem = await problemOf(answer);
      if (!problem) return answer;
      // A refused request has not reached the app, so it is safe to repeat.
      if (ENDED.includes(problem.reason) && !replaced) {
        replaced = true;
        if (await replace(sent, request.signal)) continue;
      }
      tell(problem);
      if (answer.status !== 503 || count >= repeats) return answer;
      count += 1;
      await wait(Math.min(problem.retry_after || 1, MAX_WAIT), request.signal);
    }
  }

  /* Say in the console why a stream was refused, and replace a grant that has ended. */
  async function explain(path) {
    try {
      const answer = await ask(path, {}, 0);
      await answer.body?.cancel();
    } catch {
      // The service cannot be reached, or there is no grant.
    }
  }

  async function withGrant(path) {
    const url = locate(path);
    const sent = await held();
    if (sent) url.searchParams.set("client_grant", sent);
    return url;
  }

  async function eventSource(path) {
    const events = new EventSource(await withGrant(path));
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) explain(path);
    });
    return events;
  }

  async function webSocket(path, protocols = []) {
    const url = await withGrant(path);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, protocols);
    let opened = false;
    socket.addEventListener("open", () => (opened = true));
    socket.addEventListener("close", ({ code }) => {
      if (!opened || REVOKED.includes(code)) explain(path);
    });
    return socket;
  }

  window.addEventListener("message", receive);
  window.gatekeeper = { fetch: (path, options) => ask(path, options), eventSource, webSocket };
  if (!isTemplated) askPage();
})();
