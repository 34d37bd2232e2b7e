"use strict";
// It asks for the counters once an interval while the page is visible, and keeps the last minute to draw from.
(() => {
  const interval = Number(document.body.dataset.interval);
  const mayClear = document.body.dataset.clear === "true";
  const keep = Math.max(2, Math.ceil(60000 / interval));
  const views = [];

  const words = {
    live: "live", idle: "idle: nobody reads, the next Get asks the database", waiting: "not live: every Get asks the database", failed: "the listener has failed for good",
    off: "no listener", closed: "closed", null: "stores nothing",
  };
  const tiles = [
    ["gets", "Gets a second", (s) => s.LocalHits + s.RemoteHits + s.Misses],
    ["loads", "loads a second", (s) => s.Loads],
    ["sets", "sets a second", (s) => s.Sets],
    ["invalidations", "invalidations a second", (s) => s.Invalidations],
    ["flushes", "flushes a second", (s) => s.Flushes],
  ];
  const counters = [
    ["LocalHits", "answered from memory"], ["RemoteHits", "answered by the database"], ["Misses", "in neither"],
    ["Loads", "loads"], ["LoadErrors", "loads that failed"], ["NotFound", "loads that found nothing"], ["Coalesced", "callers that shared a load"],
    ["Fenced", "loaded values not stored, as the key was written meanwhile"], ["GuardErrors", "loads without the lock, which could not be asked"],
    ["Unguarded", "keys loaded without a lock, as there were too many"],
    ["Stale", "callers that got a stale value"], ["NegativeHits", "callers that were told that there is nothing"],
    ["EarlyLoads", "loads in the background, before the expiry"], ["EarlyErrors", "of these that failed"],
    ["Sets", "values stored"], ["Deletes", "keys deleted"], ["Groups", "tags and prefixes removed"], ["Cleaned", "rows removed by this node"],
    ["Refreshed", "keys fetched again after a change"], ["Flushes", "flushes of the change log"], ["Messages", "notifications of its flushes"],
    ["Invalidations", "keys invalidated"], ["LocalFlushes", "times everything in memory was forgotten"],
    ["DecodeErrors", "values that did not decode"], ["UnknownMessages", "messages that were not understood"],
    ["Unpublished", "pulses that found changes nobody could publish"],
  ];

  const el = (name, props, ...children) => {
    const e = Object.assign(document.createElement(name), props);
    e.append(...children);
    return e;
  };
  const count = (n) => Math.round(n).toLocaleString("en");
  const rate = (n) => (n >= 100 || n === 0 ? count(n) : n.toFixed(1));
  const size = (n) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let i = 0;
    for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
    return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + " " + units[i];
  };
  const share = (n) => (100 * n).toFixed(1) + " %";

  const spark = (values) => {
    const most = Math.max(...values, 1e-9);
    return values.map((v, i) => `${i ? "L" : "M"}${(100 * (i + keep - values.length)) / (keep - 1)} ${(24 - (22 * v) / most).toFixed(1)}`).join("");
  };

  function build(i) {
    const v = { samples: [], past: {}, tiles: {}, cells: {} };
    v.title = el("h2");
    v.state = el("span", { className: "state" });
    v.reason = el("p", { className: "reason" });
    const bar = el("div", { className: "bar" });
    bar.setAttribute("role", "img");
    v.bar = bar;
    const legend = el("ul", { className: "legend" });
    v.layers = ["memory", "database", "miss"].map((name) => {
      const part = el("i", { className: name });
      const text = el("b");
      bar.append(part);
      legend.append(el("li", {}, el("i", { className: name }), { memory: "from memory ", database: "from the database ", miss: "in neither " }[name], text));
      return { part, text };
    });
    const grid = el("div", { className: "tiles" });
    const tile = (key, label, drawn) => {
      const value = el("b", { textContent: "–" });
      const box = el("div", { className: "tile" }, el("span", { textContent: label }), value);
      let line;
      if (drawn) {
        const ns = "http://www.w3.org/2000/svg";
        const svg = document.createElementNS(ns, "svg");
        svg.setAttribute("viewBox", "0 0 100 26");
        svg.setAttribute("preserveAspectRatio", "none");
        svg.setAttribute("aria-hidden", "true");
        line = document.createElementNS(ns, "path");
        svg.append(line);
        box.append(svg);
      }
      grid.append(box);
      v.tiles[key] = { value, line };
    };
    for (const [key, label] of tiles) tile(key, label, true);
    tile("memory", "entries in memory", true);
    const rows = counters.map(([key, label]) => {
      const cell = el("td");
      v.cells[key] = cell;
      return el("tr", {}, el("td", { textContent: label }), cell);
    });
    v.views = el("tbody");
    v.manyViews = el("p", { className: "said" });
    v.viewsOpen = el("details", {}, el("summary", { textContent: "Views" }),
      el("div", { className: "wide" }, el("table", { className: "views" },
        el("thead", {}, el("tr", {}, ...["view", "Gets", "from memory", "in neither", "loads", "sets", "deletes"].map((text) => el("th", { textContent: text })))), v.views)),
      v.manyViews);
    v.viewsOpen.ontoggle = () => v.last && showViews(v, v.last);
    const said = el("p", { className: "said" });
    const figures = el("table");
    const look = el("button", { type: "button", textContent: "Sizes in Postgres" });
    look.onclick = async () => {
      try {
        const t = await ask("tables.json?node=" + i);
        figures.replaceChildren(...[
          ["table", t.table], ["server", "PostgreSQL " + t.server_version.split(" ")[0]], ["rows, about", count(t.rows)], ["dead rows, about", count(t.dead_rows)],
          ["size with indexes", size(t.table_bytes)], ["change log", size(t.log_bytes)], ["pending changes", t.pending >= 1000 ? "1,000 or more" : count(t.pending)],
          ["HOT updates", t.hot_ratio === null ? "–" : share(t.hot_ratio)], ["notification queue", share(t.queue)],
        ].map(([name, value]) => el("tr", {}, el("td", { textContent: name }), el("td", { textContent: value }))));
        said.textContent = "";
      } catch (e) {
        said.textContent = e.message;
      }
    };
    const actions = el("div", { className: "actions" }, look);
    if (mayClear) {
      const clear = el("button", { type: "button", className: "danger", textContent: "Clear the cache" });
      clear.onclick = async () => {
        if (!confirm("Remove all entries of this cache?")) return;
        try {
          await ask("clear?node=" + i, { method: "POST", headers: { "X-Pgcache-Clear": "1" } });
          said.textContent = "All entries were removed.";
        } catch (e) {
          said.textContent = e.message;
        }
      };
      actions.append(clear);
    }
    document.getElementById("nodes").append(el("section", {},
      el("div", { className: "head" }, v.title, v.state, v.reason), bar, legend, grid, actions, said, figures, v.viewsOpen,
      el("details", {}, el("summary", { textContent: "All counters" }), el("table", {}, ...rows))));
    return v;
  }

  async function ask(url, options) {
    const r = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(15000), ...options });
    const body = await r.json().catch(() => ({}));
    if (!r.ok) throw new Error(body.error || "the server answered " + r.status);
    return body;
  }

  function showViews(v, n) {
    if (!v.viewsOpen.open) return;
    const gets = (s) => s.LocalHits + s.RemoteHits + s.Misses;
    const views = Object.entries(n.stats.Views || {}).sort(([a, s], [b, t]) => gets(t) - gets(s) || (a < b ? -1 : 1));
    const used = views.filter(([name, s]) => name || gets(s) || s.Loads || s.Sets || s.Deletes); // the cache's own methods are always counted
    v.views.replaceChildren(...used.map(([name, s]) => el("tr", {}, ...[
      name || "(the cache's own methods)", count(gets(s)), gets(s) ? share(s.LocalHits / gets(s)) : "–", count(s.Misses), count(s.Loads), count(s.Sets), count(s.Deletes),
    ].map((text) => el("td", { textContent: text })))));
    v.manyViews.textContent = n.views > views.length ? `The busiest ${views.length} of ${count(n.views)}.` : "";
  }

  function show(v, n, at) {
    v.title.textContent = n.name || "this process";
    v.state.textContent = words[n.state] || n.state;
    v.state.className = "state " + n.state;
    v.reason.textContent = n.reason || "";
    v.reason.hidden = !n.reason;
    v.last = n;
    showViews(v, n);
    // Counters that have gone back are those of another process; a page that was hidden has no last minute.
    const newest = v.samples[v.samples.length - 1];
    if (newest && n.stats.LocalHits + n.stats.RemoteHits + n.stats.Misses < newest.s.LocalHits + newest.s.RemoteHits + newest.s.Misses) v.samples = [];
    v.samples.push({ at, s: n.stats });
    v.samples = v.samples.filter((x) => at - x.at <= Math.max(60000, 2 * interval));
    const first = v.samples[0].s, last = n.stats;
    const parts = [last.LocalHits - first.LocalHits, last.RemoteHits - first.RemoteHits, last.Misses - first.Misses];
    const all = parts[0] + parts[1] + parts[2];
    v.layers.forEach(({ part, text }, i) => {
      part.style.width = all ? (100 * parts[i]) / all + "%" : "0";
      text.textContent = all ? share(parts[i] / all) : "–";
    });
    v.bar.setAttribute("aria-label", all ? "share of the last minute: " + v.layers.map((l) => l.text.textContent).join(", ") : "no Gets in the last minute");
    const before = v.samples[v.samples.length - 2];
    const draw = (key, value, text) => {
      const past = (v.past[key] = (v.past[key] || []).concat(value).slice(-keep));
      v.tiles[key].value.textContent = text;
      v.tiles[key].line.setAttribute("d", spark(past));
    };
    if (before && at > before.at) {
      for (const [key, , of] of tiles) {
        const r = Math.max(0, of(n.stats) - of(before.s)) / ((at - before.at) / 1000);
        draw(key, r, rate(r));
      }
    }
    if (n.memory) draw("memory", n.memory.entries, `${count(n.memory.entries)}, ${share(n.memory.full)} full`);
    for (const [key] of counters) v.cells[key].textContent = count(n.stats[key]);
  }

  const link = document.getElementById("link");
  async function tick() {
    if (!document.hidden) {
      try {
        const d = await ask("data.json");
        const at = performance.now();
        d.nodes.forEach((n, i) => show(views[i] || (views[i] = build(i)), n, at));
        link.textContent = "every " + interval / 1000 + " s";
        link.className = "";
      } catch (e) {
        link.textContent = "no answer: " + e.message;
        link.className = "lost";
      }
    }
    setTimeout(tick, interval);
  }
  tick();
})();
