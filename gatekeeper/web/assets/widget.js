/* The loader's tag on the customer's page. See "The loader" in gatekeeper/web/README.md.
 *
 *   <script src="https://widget.example/gatekeeper/widget.js" data-client-key="pk_live_…" data-mode="frame"></script>
 *
 * It reads its attributes and leaves the rest to widget.mjs beside it. The tag's property `gatekeeper` is a promise of
 * what `mount` returns. */
(() => {
  "use strict";

  const script = document.currentScript;
  if (!script) {
    console.warn("gatekeeper: load widget.js with a <script> tag that has no type; modules import widget.mjs");
    return;
  }
  const { clientKey: key, ...options } = script.dataset;
  const place = script.parentElement;

  async function start() {
    const { mount } = await import(new URL("widget.mjs", script.src).href);
    if (!document.body) {
      await new Promise((resume) => document.addEventListener("DOMContentLoaded", resume, { once: true }));
    }
    const target = document.body.contains(place) ? place : document.body;
    return mount({ ...options, key, target });
  }

  script.gatekeeper = start();
  script.gatekeeper.catch((error) => console.warn(`gatekeeper: ${error.message}`));
})();
