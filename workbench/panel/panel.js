// The panel: what is said in `state`, drawn from `charts` and `data`, and every button sent back by name.

const OPEN_GROUPS = ["optimizer", "normalization"];

async function embedOf(model) {
  const holder = await model.widget_manager.get_model(model.get("vega").slice("IPY_MODEL_".length));
  const key = `__workbench_vega_${holder.get("mark")}`;
  return (globalThis[key] ??= (async () => {
    const url = URL.createObjectURL(new Blob([holder.get("code")], { type: "text/javascript" }));
    try {
      return (await import(url)).default;
    } finally {
      URL.revokeObjectURL(url);
    }
  })());
}

function button(label, press, attributes = {}) {
  return element("button", { type: "button", class: "wb-button", onclick: press, ...attributes }, label);
}

class Panel {
  constructor(model, root) {
    Object.assign(this, { model, root, setup: model.get("setup"), charts: new Map(), controls: new Map(), rows: new Map() });
    this.page = Math.random().toString(36).slice(2);
    this.press = (name, args = {}) => model.send({ button: name, arguments: args });
    root.classList.add("wb-panel");
    root.panel = this; // for benchmarks and consoles
    root.dataset.lmSuppressShortcuts = "true";
    root.setAttribute("role", "region");
    root.tabIndex = -1;
    root.setAttribute("aria-label", `${this.setup.title}: live panel`);
    root.addEventListener("keydown", (event) => this.key(event));
    root.append(this.top(), this.said(), element("div", { class: "wb-body" }, [this.left(), this.right()]));
    this.themed();
  }

  // Parts

  top() {
    const { setup } = this;
    const begin = (name, args) => {
      this.presets.open = false;
      this.press(name, args);
    };
    const named = setup.presets.map((p) =>
      element("div", { class: "wb-preset" }, [
        button(p.name, () => begin("preset", { name: p.name }), { "data-preset": p.name }),
        element("span", { class: "wb-faint" }, p.doc),
      ]),
    );
    this.presets = element("details", { class: "wb-menu" }, [
      element("summary", {}, "Presets"),
      element("div", { class: "wb-drop" }, named),
    ]);
    this.seeds = setup.seeds.map((count) =>
      button(String(count), () => begin("seeds", { count }), {
        class: "wb-small",
        "data-seeds": count,
        title: `begin a run of ${count} seeds`,
      }),
    );
    this.predicting = element("input", { type: "checkbox", onchange: () => this.press("predict") });
    this.device = element("span", { class: "wb-faint" });
    const controls = [this.presets];
    if (!setup.varied)
      controls.push(element("span", { class: "wb-seeds", role: "group", "aria-label": "seeds" }, ["seeds ", ...this.seeds]));
    if (setup.questions) controls.push(element("label", {}, [this.predicting, " predict first"]));
    const title = element("div", { class: "wb-title" }, [element("strong", {}, setup.title), this.device]);
    return element("div", { class: "wb-top" }, [title, ...controls, this.transport()]);
  }

  transport() {
    this.play = button("▶ Run", () => this.press(this.state.running || this.state.working ? "pause" : "run"), {
      class: "wb-button wb-main",
      "aria-keyshortcuts": "R",
      title: "run or pause (R)",
      "data-press": "run",
    });
    const step = button("Step", () => this.press("step"), { "aria-keyshortcuts": "S", title: "one step (S)", "data-press": "step" });
    const twin = this.setup.varied ? "Beside" : "Twin";
    this.twin = button(twin, () => this.press("twin"), {
      "aria-keyshortcuts": "T",
      title: this.setup.varied ? "another setting beside this one (T)" : "fork here: the original goes on beside the copy (T)",
      "data-press": "twin",
    });
    const reset = button("Reset", () => this.press("reset"), { title: "begin anew with these knobs", "data-press": "reset" });
    this.limit = element(
      "select",
      { "aria-label": "speed limit", onchange: () => this.press("speed", { limit: Number(this.limit.value) }) },
      [0, 1, 5, 20, 50, 100].map((n) => element("option", { value: n }, n ? `${n} steps/s` : "full speed")),
    );
    return element("div", { class: "wb-transport", role: "toolbar", "aria-label": "transport" }, [
      this.play,
      step,
      this.twin,
      reset,
      this.limit,
    ]);
  }

  said() {
    this.where = element("span", { class: "wb-where" });
    this.glance = element("span", { class: "wb-glance", "aria-hidden": "true" });
    this.spoken = element("span", { class: "wb-unseen", role: "status", "aria-live": "polite" });
    this.message = element("div", { class: "wb-message", role: "status" });
    this.problem = element("div", { class: "wb-problem", role: "alert" });
    this.working = element("div", { class: "wb-line", hidden: true }, [
      element("progress", { max: 1, "aria-label": "training again" }),
      element("span", { class: "wb-faint" }),
    ]);
    this.offer = element("div", { class: "wb-offer", role: "alert" });
    this.guess = element("div", { class: "wb-guess", role: "group", "aria-label": "prediction" });
    return element("div", { class: "wb-said" }, [
      element("div", { class: "wb-line" }, [this.where, this.glance, this.spoken]),
      this.working,
      this.problem,
      this.offer,
      this.guess,
      this.message,
    ]);
  }

  left() {
    const groups = this.setup.groups.map((group) => {
      const varied = this.setup.varied;
      const controls = group.controls.map((control) => {
        const made = new Control(control, this.press, !varied || varied.includes(control.name));
        this.controls.set(control.name, made);
        return made.node;
      });
      const open = varied ? group.controls.some((c) => varied.includes(c.name)) : OPEN_GROUPS.includes(group.name);
      return element("details", { open, class: "wb-group" }, [element("summary", {}, group.name), ...controls]);
    });
    return element("div", { class: "wb-left", role: "group", "aria-label": "knobs" }, groups);
  }

  right() {
    this.grid = element("div", { class: "wb-grid" });
    return element("div", { class: "wb-right" }, [this.time(), this.tools(), this.grid]);
  }

  time() {
    this.slider = element("input", { type: "range", min: 0, max: 1, step: 1, "aria-label": "timeline, step" });
    this.slider.addEventListener("pointerdown", () => (this.pointed = true));
    this.slider.addEventListener("keydown", () => (this.pointed = false));
    this.slider.addEventListener("input", () => this.foretell());
    this.slider.addEventListener("change", () => this.travel());
    this.ticks = element("div", { class: "wb-ticks", "aria-hidden": "true" });
    this.hint = element("span", { class: "wb-faint" });
    this.latest = button("Latest", () => this.press("latest"), { title: "go to the end", "data-press": "latest" });
    this.memory = element("span", { class: "wb-faint wb-memory" });
    this.tree = element("ol", { class: "wb-tree", "aria-label": "branches" });
    const line = element("div", { class: "wb-timeline" }, [
      element("span", { class: "wb-label" }, "timeline"),
      element("div", { class: "wb-track" }, [this.slider, this.ticks]),
      this.latest,
    ]);
    return element("div", { class: "wb-time" }, [line, element("div", { class: "wb-line" }, [this.hint, this.memory]), this.tree]);
  }

  tools() {
    this.boxes = new Map();
    const boxes = this.setup.gauges.map((gauge) => {
      const box = element("input", { type: "checkbox", onchange: () => this.press("show", { gauge: gauge.name }) });
      this.boxes.set(gauge.name, box);
      const cost = ["", "free"].includes(gauge.cost) ? "" : ` (costs a ${gauge.cost} pass${gauge.cost === "curvature" ? "es" : ""})`;
      return element("label", {}, [box, ` ${gauge.title}, ${gauge.kind}`, element("span", { class: "wb-faint" }, cost)]);
    });
    const menu = element("details", { class: "wb-menu" }, [element("summary", {}, "Charts"), element("div", { class: "wb-drop" }, boxes)]);
    this.band = element("input", { type: "checkbox", onchange: () => this.press("band") });
    const compare = [element("label", {}, [this.band, " seeds as a band"])];
    for (const what of ["published", "shipped"]) {
      if (!this.setup[what]) continue;
      this[what] = element("input", { type: "checkbox", onchange: () => this.press("compare", { what }) });
      compare.push(element("label", {}, [this[what], what === "published" ? " published numbers" : " shipped record"]));
    }
    this.unpin = button("Unpin", () => this.press("unpin"));
    this.references = element("span", { class: "wb-faint" });
    const pin = button("Pin", () => this.press("pin"), { title: "keep these curves as a reference", "data-press": "pin" });
    return element("div", { class: "wb-tools", role: "toolbar", "aria-label": "charts" }, [
      menu,
      ...compare,
      pin,
      this.unpin,
      this.keep(),
      this.references,
    ]);
  }

  keep() {
    const name = element("input", { type: "text", value: `${this.setup.study}-live.nc`, "aria-label": "file to save the record to" });
    const save = button("Save record", () => this.press("save", { path: name.value }), { "data-press": "save" });
    this.text = element("textarea", { rows: 5, readonly: true, "aria-label": "Python or knobs as text", hidden: true });
    const ask = (what) => this.model.send({ ask: what });
    const load = element("input", { type: "text", placeholder: "paste shared knobs", "aria-label": "shared knobs" });
    load.addEventListener("change", () => load.value && this.press("load", { text: load.value }));
    const python = button("Copy Python", () => ask("python"), { "data-press": "python" });
    const shared = button("Share knobs", () => ask("shared"), { "data-press": "shared" });
    const drop = element("div", { class: "wb-drop" }, [
      this.setup.saves ? element("div", {}, [name, save]) : null,
      element("div", {}, [python, shared, load]),
      this.text,
    ]);
    return element("details", { class: "wb-menu" }, [element("summary", {}, "Keep"), drop]);
  }

  // What came from Python

  get state() {
    return this.model.get("state");
  }

  show() {
    const s = this.state;
    if (s.step === undefined) return;
    const pausable = s.running || s.working;
    this.play.textContent = pausable ? "❚❚ Pause" : "▶ Run";
    this.play.setAttribute("aria-label", pausable ? "pause" : "run");
    this.device.textContent = s.replay ? s.device : `on ${s.device}`;
    this.where.textContent = `${s.branches.find((b) => b.selected)?.name ?? ""} · step ${s.step}${s.past ? ` of ${s.end}` : ""}${s.running ? ` · ${figure(s.speed)} steps/s` : ""}`;
    this.speak(s);
    this.line(this.message, s.working ? "" : s.message);
    this.progress(s.working);
    this.trouble(s);
    this.offered(s.offer);
    this.asked(s);
    for (const [name, control] of this.controls) control.show(name in s.pending ? s.pending[name] : s.knobs[name], s.pending[name]);
    for (const choice of this.seeds) choice.setAttribute("aria-pressed", Number(choice.dataset.seeds) === s.seeds);
    this.limit.value = s.limit;
    this.predicting.checked = s.predicting;
    this.band.checked = s.bands;
    for (const what of ["published", "shipped"]) if (this[what]) this[what].checked = s.compared.includes(what);
    this.unpin.hidden = !s.pins.length;
    this.references.textContent = [...s.pins, s.shipped]
      .filter(Boolean)
      .map((name) => `┄ ${name}`)
      .join("  ");
    for (const [name, box] of this.boxes) box.checked = s.shown.includes(name);
    this.timeline(s);
    this.grid.classList.toggle("wb-veiled", Boolean(s.guess && s.guess.answer === null));
    for (const [name, card] of this.charts) card.log.textContent = s.logarithmic.includes(name) ? "log" : "linear";
  }

  // Shown at once; spoken only when something else happens than before, not when a number moves.
  speak(s) {
    this.glance.textContent = s.glance.join("; ");
    const sense = this.glance.textContent.replace(/[\d.]+(e-?\d+)?/g, "#");
    if (sense === this.sense) return;
    this.sense = sense;
    this.spoken.textContent = this.glance.textContent;
  }

  // Hide a part; where focus was in it, it goes to the panel, so that keys go on working.
  toggle(node, shown) {
    if (!shown && node.contains(document.activeElement)) this.root.focus();
    node.hidden = !shown;
    return shown;
  }

  // Other contents for a part, see `toggle`.
  refill(node, ...parts) {
    if (node.contains(document.activeElement)) this.root.focus();
    node.replaceChildren(...parts);
  }

  line(node, text) {
    if (!this.toggle(node, Boolean(text)) || node.dataset.text === text) return;
    node.dataset.text = text;
    this.refill(
      node,
      text,
      button("✕", () => this.press("dismiss"), { class: "wb-close", "aria-label": "dismiss" }),
    );
  }

  progress(working) {
    this.working.hidden = !working;
    if (!working) return;
    const { from, reached, goal } = working;
    this.working.firstChild.value = (reached - from) / Math.max(1, goal - from);
    this.working.lastChild.textContent = ` training again from step ${from}: ${reached} of ${goal}; Pause breaks it off`;
  }

  trouble(s) {
    const mark = JSON.stringify([s.problem, s.step]);
    if (!this.toggle(this.problem, Boolean(s.problem)) || this.problem.dataset.mark === mark) return;
    this.problem.dataset.mark = mark;
    const back = s.kept.filter((step) => step < s.step).at(-1) ?? 0;
    const ways = [
      button("Try again", () => this.press("run")),
      button(`Go back to step ${back}`, () => this.press("back", { step: back })),
      button("Reset", () => this.press("reset")),
    ];
    this.refill(this.problem, `Training stopped at step ${s.step}. ${s.problem} `, ...ways);
  }

  offered(offer) {
    const mark = JSON.stringify(offer);
    if (!this.toggle(this.offer, Boolean(offer)) || this.offer.dataset.mark === mark) return;
    this.offer.dataset.mark = mark;
    const ways = offer.ways.map((way) => button(way, () => this.press("choose", { way }), { "data-way": way }));
    this.refill(
      this.offer,
      `${offer.text} `,
      ...ways,
      button("✕", () => this.press("dismiss"), { class: "wb-close", "aria-label": "dismiss" }),
    );
  }

  asked(s) {
    const { guess } = s;
    const mark = JSON.stringify(guess);
    if (!this.toggle(this.guess, Boolean(guess)) || this.guess.dataset.mark === mark) return;
    this.guess.dataset.mark = mark;
    const parts = [element("strong", {}, guess.question)];
    if (guess.answer === null)
      parts.push(...guess.answers.map((answer, place) => button(answer, () => this.press("answer", { place }), { "data-answer": place })));
    else if (guess.outcome === null) parts.push(` You said: ${guess.answers[guess.answer]}. Watch up to step ${guess.until}.`);
    else {
      const right = guess.answer === guess.outcome;
      const verdict = right ? "You were right" : `You said: ${guess.answers[guess.answer]}`;
      parts.push(
        ` ${verdict}${right ? "" : ". It was"}: ${guess.answers[guess.outcome]}. `,
        button("Close", () => this.press("dismiss")),
      );
    }
    this.refill(this.guess, ...parts);
  }

  timeline(s) {
    this.slider.max = Math.max(1, s.end);
    if (!this.moving) this.slider.value = s.step;
    this.slider.disabled = s.end === 0 || Boolean(s.working);
    this.slider.setAttribute("aria-valuetext", `step ${s.step} of ${s.end}`);
    this.latest.disabled = s.step === s.end;
    this.memory.textContent = s.memory;
    if (!this.moving)
      this.hint.textContent = s.working
        ? ""
        : s.past
          ? `back at step ${s.step}; change something to branch here`
          : s.replay
            ? "drag to move over the record"
            : "drag to go back";
    this.ticked(s);
    this.branches(s);
  }

  // At most so many ticks as can be told apart.
  ticked(s) {
    const every = Math.ceil(s.kept.length / 120),
      kept = s.kept.filter((_, i) => i % every === 0);
    const mark = `${kept.join()}|${s.end}`;
    if (mark === this.drawnTicks) return;
    this.drawnTicks = mark;
    this.ticks.replaceChildren(...kept.map((step) => element("i", { style: `left:${(100 * step) / Math.max(1, s.end)}%` })));
  }

  // One row for each branch, which stays the same node while its numbers move: it can be clicked and keeps the focus.
  branches(s) {
    const longest = Math.max(1, ...s.branches.map((b) => b.step)),
      numbers = s.branches.map((b) => b.number);
    for (const [number, row] of this.rows) {
      if (numbers.includes(number)) continue;
      if (row.node.contains(document.activeElement)) this.root.focus();
      row.node.remove();
      this.rows.delete(number);
    }
    for (const b of s.branches) {
      if (!this.rows.has(b.number)) this.rows.set(b.number, this.branchRow(b.number));
      this.fillRow(this.rows.get(b.number), b, s, longest);
    }
    const order = numbers.join();
    if (order !== this.order) this.tree.append(...numbers.map((number) => this.rows.get(number).node));
    this.order = order;
  }

  branchRow(number) {
    const [name, words, bar, step] = ["wb-name", "wb-words", "wb-bar", "wb-faint"].map((name) => element("span", { class: name }));
    const pick = element(
      "button",
      { type: "button", class: "wb-branch", "data-branch": number, onclick: () => this.press("select", { number }) },
      [name, words, bar, step],
    );
    const rest = button("", () => this.press("rest", { number }), { class: "wb-small", "data-rest": number });
    const remove = button("✕", () => this.press("forget", { number }), { class: "wb-small", title: "remove" });
    return {
      node: element("li", {}, [pick, element("span", { class: "wb-actions" }, [rest, remove])]),
      name,
      words,
      bar,
      step,
      pick,
      rest,
      remove,
    };
  }

  fillRow(row, b, s, longest) {
    const share = (step) => `${(100 * step) / longest}%`,
      status = b.lost ? "diverged" : b.resting ? "resting" : "";
    row.node.className = b.selected ? "wb-selected" : "";
    row.pick.setAttribute("aria-label", `${b.name}, ${b.words}, step ${b.step}${status ? `, ${status}` : ""}`);
    row.pick.setAttribute("aria-current", b.selected);
    row.step.textContent = b.step;
    row.bar.replaceChildren(
      element("span", { class: "wb-stretch", style: `left:${share(b.start)};width:${share(b.step - b.start)};background:${b.colour}` }),
      ...b.changes.map((step) => element("i", { style: `left:${share(step)};border-color:${b.colour}` })),
    );
    const text = `${b.words}${status ? ` · ${status}` : ""}`;
    if (row.words.textContent !== text) Object.assign(row.words, { textContent: text, title: text });
    if (!row.name.childNodes.length) row.name.append(b.depth ? "└ " : "", swatch(b.colour), b.name);
    row.name.style.paddingLeft = `${b.depth}em`;
    this.toggle(row.rest, !s.replay && s.branches.length > 1);
    this.toggle(row.remove, b.removable);
    row.rest.textContent = b.resting ? "go on" : "rest";
    row.rest.setAttribute("aria-label", b.resting ? `let ${b.name} go on` : `let ${b.name} rest`);
    row.remove.setAttribute("aria-label", `remove ${b.name}`);
  }

  foretell() {
    this.moving = true;
    const step = this.snapped(),
      s = this.state;
    const from = s.replay ? step : (s.kept.filter((at) => at <= step).at(-1) ?? 0);
    this.slider.setAttribute("aria-valuetext", `step ${step} of ${s.end}`);
    this.hint.textContent = from === step ? `step ${step}` : `step ${step}: will be trained again from ${from}`;
    if (s.replay) this.press("back", { step });
  }

  travel() {
    const step = this.snapped();
    this.moving = false;
    this.press(step >= this.state.end ? "latest" : "back", step >= this.state.end ? {} : { step });
  }

  // Of a drag the kept step that is near enough to be meant; a key means what it says.
  snapped() {
    const step = Number(this.slider.value),
      near = this.pointed ? this.state.end / 150 : 0;
    const found = this.state.kept.filter((at) => Math.abs(at - step) <= near);
    return found.length ? found.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a)) : step;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.matches("input[type=text], textarea, select")) return;
    const meant = { r: () => this.play.click(), s: () => this.press("step"), t: () => this.press("twin") }[event.key.toLowerCase()];
    if (!meant) return;
    event.preventDefault();
    event.stopPropagation();
    meant();
  }

  // Charts

  async draw() {
    const embed = await (this.embed ??= embedOf(this.model)).catch((error) => {
      this.grid.replaceChildren(element("div", { class: "wb-problem" }, `Charts cannot be drawn on this page: ${error.message}`));
    });
    if (!embed) return;
    const wanted = this.model.get("charts");
    const focused = document.activeElement?.closest?.(".wb-card")?.dataset.gauge;
    for (const [name, card] of this.charts) {
      if (JSON.stringify(wanted[name]) === card.mark) continue;
      card.chart.dispose();
      card.node.remove();
      this.charts.delete(name);
    }
    for (const [name, chart] of Object.entries(wanted)) {
      if (this.charts.has(name) || this.gone) continue;
      const card = this.card(name, chart, embed);
      this.charts.set(name, card);
      this.place(Object.keys(wanted));
      card.chart
        .build()
        .catch((error) => card.node.append(element("div", { class: "wb-problem" }, `This chart cannot be drawn: ${error.message}`)));
    }
    if (focused && !this.root.contains(document.activeElement)) (this.charts.get(focused)?.log ?? this.root).focus();
    this.fill();
  }

  place(order) {
    this.grid.append(...order.filter((name) => this.charts.has(name)).map((name) => this.charts.get(name).node));
  }

  card(name, chart, embed) {
    const log = button("linear", () => this.press("scale", { gauge: name }), {
      class: "wb-small",
      title: "linear or logarithmic axis",
      hidden: chart.kind === "picture" || chart.kind === "histogram",
    });
    const host = element("div", { class: "wb-host" });
    const numbers = element("div", { class: "wb-numbers" });
    const table = element("details", { class: "wb-data" }, [
      element("summary", { "aria-label": `data table of ${chart.title}` }, "Data table"),
      numbers,
    ]);
    const node = element("section", { class: "wb-card", "data-gauge": name, "aria-label": chart.title }, [
      element("header", {}, [element("h4", {}, chart.title), log]),
      host,
      table,
    ]);
    const drawn = new Chart(embed, host, chart, {
      dark: () => isDark(this.model.get("theme")),
      interpreted: this.model.get("interpreted"),
      running: () => this.state.running,
      painted: () => this.painted(node, table, numbers, drawn),
    });
    table.addEventListener("toggle", () => table.open && numbers.replaceChildren(drawn.table()));
    return { node, log, chart: drawn, mark: JSON.stringify(chart) };
  }

  painted(node, table, numbers, drawn) {
    node.dataset.sent = drawn.sent ?? 0;
    globalThis.workbenchPaints?.push({ sent: drawn.sent, at: drawn.at, painted: performance.timeOrigin + performance.now() }); // for benchmarks
    const now = performance.now();
    if (!table.open || (this.state.running && now - (drawn.tabled ?? 0) < 3000)) return;
    drawn.tabled = now;
    const at = numbers.scrollTop;
    numbers.replaceChildren(drawn.table());
    numbers.scrollTop = at;
  }

  fill(from = ["data", "slow"]) {
    this.model.send({ page: this.page, seen: this.model.get("data").sent ?? 0 });
    for (const data of from.map((trait) => this.model.get(trait))) {
      for (const [name, tables] of Object.entries(data.tables ?? {})) {
        const chart = this.charts.get(name)?.chart;
        if (!chart) continue;
        Object.assign(chart, { sent: data.sent, at: data.at });
        chart.put(tables, data.last);
      }
    }
  }

  heard(message) {
    if (message.said === undefined) return;
    this.text.hidden = false;
    this.text.value = message.text;
    this.text.select();
    navigator.clipboard?.writeText(message.text).catch(() => {});
  }

  themed() {
    const dark = isDark(this.model.get("theme"));
    if (this.root.dataset.dark === String(dark)) return;
    this.root.dataset.dark = String(dark);
    for (const { chart } of this.charts.values()) if (chart.view) chart.build();
  }

  close() {
    this.gone = true;
    for (const { chart } of this.charts.values()) chart.dispose();
  }
}

export default {
  async render({ model, el }) {
    const panel = new Panel(model, el.appendChild(document.createElement("div")));
    const on = {
      "change:state": () => panel.show(),
      "change:charts": () => panel.draw(),
      "change:data": () => panel.fill(["data"]),
      "change:slow": () => panel.fill(["slow"]),
      "change:theme": () => panel.themed(),
      "msg:custom": (message) => panel.heard(message),
    };
    for (const [name, react] of Object.entries(on)) model.on(name, react);
    const watch = new MutationObserver(() => panel.themed());
    watch.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
    panel.show();
    panel.draw();
    return () => {
      for (const [name, react] of Object.entries(on)) model.off(name, react);
      watch.disconnect();
      panel.close();
      model.send({ page: panel.page });
    };
  },
};
