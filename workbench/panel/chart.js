// Charts: a Vega view made once, into which tables are put; the latest wins, and nothing queues.

const DARK = { "#1f2328": "#e6edf3", "#59636e": "#a6b0bb", "#e4e7eb": "#343b45", white: "transparent" };

function isDark(theme) {
  if (theme !== "auto") return theme === "dark";
  const body = document.body;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  return body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast");
}

// The chart's inks for a dark page.
function inked(spec, dark) {
  if (!dark) return { ...structuredClone(spec), background: "transparent" };
  const text = JSON.stringify(spec).replace(/"(#1f2328|#59636e|#e4e7eb)"/g, (_, ink) => `"${DARK[ink]}"`);
  return { ...JSON.parse(text), background: "transparent" };
}

function bytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out.buffer;
}

// A packed table as columns.
function unpacked(table) {
  const out = {};
  for (const [name, column] of Object.entries(table.columns)) {
    if (column.numbers !== undefined) out[name] = new Float32Array(bytes(column.numbers));
    else out[name] = column.words.flatMap((word, i) => new Array(column.times[i]).fill(word));
  }
  return { rows: table.rows, columns: out };
}

function rowsOf({ rows, columns }) {
  const names = Object.keys(columns),
    out = new Array(rows);
  for (let i = 0; i < rows; i++) {
    const row = {};
    for (const name of names) row[name] = columns[name][i];
    out[i] = row;
  }
  return out;
}

function figure(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

// The values of each line of a table at a step, or at the latest one before it.
function valuesAt({ rows, columns: { step, value, line, colour } }, at) {
  const out = new Map();
  for (let i = 0; i < rows; i++) {
    if (step[i] <= at + 0.5 && Number.isFinite(value[i])) out.set(line[i], { step: step[i], value: value[i], colour: colour[i] });
  }
  return out;
}

class Chart {
  constructor(embed, host, chart, options) {
    Object.assign(this, {
      embed,
      host,
      chart,
      options,
      view: null,
      dirty: false,
      busy: false,
      gone: false,
      tables: {},
      last: 1,
      cursor: null,
    });
    this.frame = host.appendChild(element("div", { class: "wb-vega" }));
    this.strip = chart.difference ? host.appendChild(element("div", { class: "wb-vega wb-strip" })) : null;
    this.readout = host.appendChild(element("div", { class: "wb-readout" }));
    this.frame.tabIndex = 0;
    this.frame.addEventListener("pointermove", (event) => this.point(event));
    this.frame.addEventListener("blur", () => this.read(null));
    this.frame.addEventListener("pointerleave", () => this.read(null));
    this.frame.addEventListener("keydown", (event) => this.key(event));
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(host);
  }

  width() {
    return Math.max(220, Math.floor(this.host.clientWidth - 4));
  }

  async build() {
    const old = this.view,
      oldStrip = this.stripView;
    const make = async (node, spec) => {
      const sized = inked(spec, this.options.dark());
      if (!JSON.stringify(sized.params ?? []).includes('"last"')) sized.params = [...(sized.params ?? []), { name: "last", value: 1 }];
      this.fitted = this.width();
      if (this.chart.kind !== "picture") Object.assign(sized, { width: this.fitted, autosize: { type: "fit-x", contains: "padding" } });
      const made = await this.embed(node, sized, { renderer: "canvas", actions: false, ast: this.options.interpreted, mode: "vega-lite" });
      return made.view;
    };
    this.view = await make(this.frame, this.chart.spec);
    this.names = datasets(this.view);
    this.stripView = null;
    old?.finalize();
    oldStrip?.finalize();
    this.make = make;
    if (this.gone) return this.dispose();
    await this.paint();
    await this.fit();
  }

  put(tables, last) {
    Object.assign(this, { fresh: tables, last });
    if (this.dirty) return;
    this.dirty = true;
    if (!this.busy) requestAnimationFrame(() => this.paint());
  }

  async paint() {
    if (this.gone || !this.view) return;
    this.dirty = false;
    this.busy = true;
    if (this.fresh) this.tables = Object.fromEntries(Object.entries(this.fresh).map(([name, table]) => [name, unpacked(table)]));
    this.fresh = null;
    try {
      await this.fill(this.view, this.names);
      const differences = this.tables.differences;
      if (this.strip && differences?.rows) {
        this.strip.hidden = false;
        this.stripView ??= await this.make(this.strip, this.chart.difference);
        await this.fill(this.stripView, ["differences", "zero"]);
      } else if (this.strip) this.strip.hidden = true;
      this.tell();
      this.options.painted();
    } catch (error) {
      if (!this.gone) throw error;
    } finally {
      this.busy = false;
      if (this.dirty) requestAnimationFrame(() => this.paint());
    }
  }

  async fill(view, names) {
    for (const name of names) if (this.tables[name]) view.data(name, rowsOf(this.tables[name]));
    try {
      view.signal("last", this.last);
    } catch {
      // charts without steps have no such signal
    }
    await view.resize().runAsync();
  }

  // The chart in words, for readers of screens, and the values under the pointer.
  tell() {
    const table = this.tables.lines,
      now = performance.now();
    let text = this.chart.title;
    if (this.told && this.options.running() && now - this.told < 2000 && /at step|:/.test(this.frame.getAttribute("aria-label") ?? ""))
      return this.read(this.cursor);
    if (table) {
      const said = [...valuesAt(table, this.last)].map(([line, at]) => `${line} at step ${at.step}: ${figure(at.value)}`);
      text = `${this.chart.title}. ${said.join("; ") || "nothing measured yet"}`;
    }
    this.told = now;
    this.view.description(text);
    this.frame.setAttribute("role", "img");
    this.frame.setAttribute("aria-label", text);
    this.frame.querySelector("[role=graphics-document]")?.setAttribute("aria-hidden", "true");
    this.read(this.cursor);
  }

  point(event) {
    this.readout.removeAttribute("aria-live");
    const canvas = this.frame.querySelector("canvas");
    if (!canvas || this.chart.kind === "picture" || this.chart.kind === "histogram") return;
    const at = event.clientX - canvas.getBoundingClientRect().left - this.view.origin()[0];
    const step = this.view.scale("x").invert(at);
    this.read(Math.max(0, Math.min(step, this.last)));
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    this.readout.setAttribute("aria-live", "polite"); // the cursor that keys move is spoken of
    const by = Math.max(1, Math.round(this.last / 50));
    this.read(Math.max(0, Math.min(this.last, (this.cursor ?? this.last) + move * by)));
  }

  read(step) {
    this.cursor = step;
    const { lines, references, cells, about } = this.tables;
    this.readout.replaceChildren();
    const notes = about ? about.columns.text : [];
    if (cells && step === null) return this.readout.append(element("span", { class: "wb-faint" }, notes.join(" · ")));
    if (!lines && !cells) return this.readout.append(element("span", { class: "wb-faint" }, notes.join(" · ")));
    if (cells && step !== null) return this.readCells(cells, step);
    if (!lines?.rows) return;
    const at = step ?? this.last;
    this.readout.append(element("span", { class: "wb-faint" }, `step ${Math.round(at)}`));
    for (const table of [lines, references].filter(Boolean)) {
      for (const [line, found] of valuesAt(table, at)) {
        this.readout.append(element("span", { class: "wb-value" }, [swatch(found.colour), `${line} ${figure(found.value)}`]));
      }
    }
    this.readout.append(...notes.map((note) => element("span", { class: "wb-faint" }, note)));
  }

  readCells(cells, step) {
    const found = cells.columns,
      latest = new Map();
    for (let i = 0; i < cells.rows; i++) if (found.step[i] <= step) latest.set(found.row[i], found.value[i]);
    this.readout.append(element("span", { class: "wb-faint" }, `step ${Math.round(step)}`));
    for (const [row, value] of latest) this.readout.append(element("span", { class: "wb-value" }, `${row}: ${figure(value)}`));
  }

  // The numbers behind the chart: some steps, spread evenly, and the last.
  table() {
    const { lines, bars, cells, pictures } = this.tables;
    const source = lines ?? cells;
    if (!source) return pictures ? "A picture; its values are in the record's node “pictures”." : this.spread(bars);
    const found = source.columns,
      name = cells ? "row" : "line";
    const heads = [...new Set(found[name])],
      steps = [...new Set(found.step)].sort((a, b) => a - b);
    const every = Math.max(1, Math.ceil(steps.length / 12));
    const chosen = steps.filter((_, i) => i % every === 0 || i === steps.length - 1);
    const at = chosen.map((step) => valuesAt({ rows: source.rows, columns: { ...found, line: found[name], colour: [] } }, step));
    return gridOf(
      ["step", ...heads],
      chosen.map((step, i) => [String(step), ...heads.map((head) => figure(at[i].get(head)?.value ?? NaN))]),
    );
  }

  spread(bars) {
    if (!bars) return "Nothing measured yet.";
    const found = bars.columns;
    return gridOf(
      ["from", "of", "share"],
      Array.from({ length: bars.rows }, (_, i) => [figure(found.low[i]), found.line[i], figure(found.share[i])]),
    );
  }

  async fit() {
    if (!this.view || this.chart.kind === "picture" || this.view.width() === undefined) return;
    const width = this.width();
    if (this.fitted === width) return;
    this.fitted = width;
    for (const view of [this.view, this.stripView]) if (view) await view.signal("width", width).resize().runAsync();
  }

  dispose() {
    this.gone = true;
    this.resized.disconnect();
    this.view?.finalize();
    this.stripView?.finalize();
  }
}

// The names of the data that a view has.
function datasets(view) {
  return Object.keys(view.getState({ data: () => true, signals: () => false, recurse: false }).data);
}

function gridOf(heads, body) {
  const line = (cells, tag) =>
    element(
      "tr",
      {},
      cells.map((cell) => element(tag, {}, cell)),
    );
  return element("table", { class: "wb-table" }, [
    element("thead", {}, [line(heads, "th")]),
    element(
      "tbody",
      {},
      body.map((cells) => line(cells, "td")),
    ),
  ]);
}

function swatch(colour) {
  return element("span", { class: "wb-swatch", style: `background:${colour}`, "aria-hidden": "true" });
}
