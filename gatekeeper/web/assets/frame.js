/* The loader inside the widget's frame. See "The loader" in gatekeeper/web/README.md.
 *
 *   <script src="/gatekeeper/frame.js" data-grant="…"></script>
 *
 * It keeps the frame's grant, and offers `gatekeeper.fetch`, `gatekeeper.eventSource` and `gatekeeper.webSocket`, which send
 * it. Without the attribute, the page hands the grant over. */
(() => {
  "use strict";

  const MAX_WAIT = 30_000; // milliseconds for which a request waits for a grant of the page
  const MIN_LIFE = 60_000; // milliseconds for which a reloaded document stays, so that reloads never form a loop
  const PAGE = 3; // the place of the page's origin in a grant

  const { src, dataset } = document.currentScript;
  const service = new URL(src);
  const isTemplated = Boolean(dataset.grant);
  let grant = dataset.grant || null;
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
    try {
      if (pageOf(data.grant) !== origin) return;
    } catch {
      return; // no grant
    }
    [grant, page] = [data.grant, origin];
    waiting.forEach((resume) => resume());
    waiting = [];
  }

  /* The grant, once there is one. */
  async function held() {
    if (grant) return grant;
    if (page) window.parent.postMessage({ type: "gatekeeper.grant_expired" }, page);
    await new Promise((resume, fail) => {
      waiting.push(resume);
      setTimeout(() => fail(new Error("gatekeeper: the page has handed over no grant")), MAX_WAIT);
    });
    return grant;
  }

  /* Get a new grant in place of one that has ended. Returns whether to repeat the request. */
  async function replace(ended) {
    if (isTemplated) {
      const [{ type } = {}] = performance.getEntriesByType("navigation");
      if (type !== "reload" || performance.now() > MIN_LIFE) location.reload();
      return false;
    }
    if (grant === ended) grant = null;
    return held().then(() => true, () => false);
  }

  /* The URL of a path of the service. The grant is sent nowhere else. */
  function locate(path) {
    const url = new URL(path, service);
    if (url.origin !== service.origin) throw new TypeError(`${url.origin} is not the widget's service, ${service.origin}`);
    return url;
  }

  async function hasEnded(answer) {
    if (answer.status !== 403 || answer.headers.get("content-type") !== "application/problem+json") return false;
    const problem = await answer.clone().json().catch(() => null);
    return problem?.type === "urn:gatekeeper:grant_expired";
  }

  async function ask(path, options) {
    const request = new Request(locate(path), options);
    for (let repeated = false; ; repeated = true) {
      const sent = await held();
      request.headers.set("data-client-grant", sent);
      const answer = await fetch(request.clone());
      const renewed = answer.headers.get("data-client-grant");
      if (renewed && grant === sent && new URL(answer.url).origin === service.origin) grant = renewed;
      // A refused request has not reached the app, so it is safe to repeat.
      if (repeated || !(await hasEnded(answer)) || !(await replace(sent))) return answer;
    }
  }

  /* Ask why a stream was refused, which replaces a grant that has ended. */
  async function explain(path) {
    try {
      const answer = await ask(path);
      await answer.body?.cancel();
    } catch {
      // The service cannot be reached, or there is no grant.
    }
  }

  async function withGrant(path) {
    const url = locate(path);
    url.searchParams.set("client_grant", await held());
    return url;
  }

  async function eventSource(path) {
    const events = new EventSource(await withGrant(path));
    events.addEventListener("error", () => events.readyState === EventSource.CLOSED && explain(path));
    return events;
  }

  async function webSocket(path, protocols = []) {
    const url = await withGrant(path);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, protocols);
    let opened = false;
    socket.addEventListener("open", () => (opened = true));
    socket.addEventListener("close", () => opened || explain(path));
    return socket;
  }

  window.addEventListener("message", receive);
  window.gatekeeper = { fetch: ask, eventSource, webSocket };
})();
