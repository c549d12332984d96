// Controls: one for each knob, with its real value for eye and screen reader.

function element(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...[children].flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const POSITIONS = 400;
const THROTTLE = 60;

// Places on a slider to values and back; logarithmic ones are rounded to three digits.
function scaleOf(control) {
  const { low, high, log, whole } = control;
  const round = (value) => (whole ? Math.round(value) : Number(value.toPrecision(3)));
  if (log) {
    const [a, b] = [Math.log(low), Math.log(high)];
    return {
      to: (p) => round(Math.exp(a + ((b - a) * p) / POSITIONS)),
      from: (v) => (POSITIONS * (Math.log(v) - a)) / (b - a),
      most: POSITIONS,
    };
  }
  if (whole && high - low <= POSITIONS) return { to: (p) => low + Math.round(p), from: (v) => v - low, most: high - low };
  return { to: (p) => round(low + ((high - low) * p) / POSITIONS), from: (v) => (POSITIONS * (v - low)) / (high - low), most: POSITIONS };
}

function written(control, value) {
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "number" ? figure(value) : String(value);
}

class Control {
  constructor(control, press, enabled) {
    Object.assign(this, { control, press, held: false, sent: 0, waiting: null, restful: null, latest: [control.default, undefined] });
    this.id = `wb-${Math.random().toString(36).slice(2, 9)}`;
    const label = element("label", { for: this.id, class: "wb-label" }, control.label);
    this.undo = element(
      "button",
      {
        class: "wb-undo",
        type: "button",
        "aria-label": `reset ${control.label} to ${written(control, control.default)}`,
        title: `back to ${written(control, control.default)}`,
        onclick: () => press("default", { knob: control.name }),
      },
      "↺",
    );
    const mark = control.restarts ? element("span", { class: "wb-restarts", title: "another value begins a new run" }, "new run") : null;
    const units = control.units
      ? element("span", { class: "wb-units" }, `${control.units}${/^(step|bit|pixel|character|example)$/.test(control.units) ? "s" : ""}`)
      : null;
    const acts = !enabled ? "; the same in all runs" : control.restarts ? "; another value begins a new run" : "; acts at the next step";
    const help = element("span", { class: "wb-help", id: `${this.id}-help` }, control.doc + acts);
    this.node = element("div", { class: "wb-knob", "data-knob": control.name }, [
      element("div", { class: "wb-head" }, [label, mark, this.undo]),
      element("div", { class: "wb-input" }, [...this.inputs(), units]),
      help,
    ]);
    for (const input of this.node.querySelectorAll("input, select")) {
      input.setAttribute("aria-describedby", `${this.id}-help`);
      input.disabled = !enabled;
    }
    this.undo.disabled = !enabled;
  }

  inputs() {
    const { control } = this;
    const named = { id: this.id, "aria-label": this.spoken() };
    if (control.kind === "switch") {
      this.box = element("input", { ...named, type: "checkbox", onchange: () => this.settle(this.box.checked) });
      return [this.box];
    }
    if (control.kind === "choice") {
      this.list = element(
        "select",
        { ...named, onchange: () => this.settle(control.choices[this.list.selectedIndex]) },
        control.choices.map((choice) => element("option", {}, String(choice))),
      );
      return [this.list];
    }
    if (control.kind === "text") {
      this.field = element("input", { ...named, type: "text", onchange: () => this.settle(this.field.value) });
      return [this.field];
    }
    return this.slider(named);
  }

  slider(named) {
    const { control } = this;
    this.scale = scaleOf(control);
    const step = control.whole && this.scale.most === control.high - control.low ? 1 : "any";
    this.range = element("input", { ...named, type: "range", min: 0, max: this.scale.most, step });
    this.range.addEventListener("input", () => this.drag());
    this.range.addEventListener("change", () => this.drop());
    this.range.addEventListener("keydown", (event) => this.nudge(event));
    this.number = element("input", { type: "text", inputmode: "decimal", class: "wb-number", "aria-label": `${this.spoken()}, value` });
    this.number.addEventListener("keydown", (event) => event.key === "Enter" && this.commit());
    this.number.addEventListener("blur", () => this.commit());
    return [this.range, this.number];
  }

  // The visible label first, so that it can be spoken to.
  spoken() {
    return `${this.control.label}: ${this.control.doc.replace(/ \(.*\)/, "").split(/[,;]/)[0]}`;
  }

  // What was typed, if it is a number other than the one shown; anything else gives way to the real value.
  commit() {
    const typed = this.number.value.trim(),
      value = Number(typed);
    if (typed !== "" && Number.isFinite(value) && typed !== figure(this.latest[0])) this.settle(value);
    else if (!this.held) this.write(this.latest[0]);
  }

  // Arrow keys move by whole numbers, or by a fiftieth of the slider, which is what a person sees move.
  nudge(event) {
    const move = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5 }[event.key];
    if (!move || this.range.step !== "any") return;
    event.preventDefault();
    this.range.value = Number(this.range.value) + (move * this.scale.most) / 50;
    this.drag();
    this.drop();
  }

  drag() {
    this.held = true;
    clearTimeout(this.restful);
    const value = this.scale.to(Number(this.range.value));
    this.write(value);
    if (!this.control.restarts) this.soon(value);
  }

  drop() {
    clearTimeout(this.waiting);
    this.waiting = null;
    const value = this.scale.to(Number(this.range.value));
    if (value !== this.last) this.send(value);
    this.release();
  }

  // A value that was chosen stays in sight until Python has answered: what is shown meanwhile may be older.
  settle(value) {
    this.held = true;
    this.send(value);
    this.release();
  }

  release() {
    clearTimeout(this.restful);
    this.restful = setTimeout(() => {
      this.held = false;
      this.show(...this.latest);
      if (this.number) this.write(this.latest[0]);
    }, 600);
  }

  soon(value) {
    this.next = value;
    if (this.waiting) return;
    const wait = Math.max(0, this.sent + THROTTLE - performance.now());
    this.waiting = setTimeout(() => {
      this.waiting = null;
      this.send(this.next);
    }, wait);
  }

  send(value) {
    this.sent = performance.now();
    this.last = value;
    this.press("set", { [this.control.name]: value });
  }

  write(value) {
    this.number.value = figure(value);
    this.range.setAttribute("aria-valuetext", `${figure(value)}${this.control.units ? ` ${this.control.units}` : ""}`);
  }

  show(value, pending) {
    this.latest = [value, pending];
    if (!this.held) this.last = value;
    this.node.classList.toggle("wb-changed", value !== this.control.default);
    this.node.classList.toggle("wb-pending", pending !== undefined);
    if (value === this.control.default && document.activeElement === this.undo) this.node.querySelector("input, select").focus();
    this.undo.hidden = value === this.control.default;
    if (this.held) return;
    if (this.box) this.box.checked = value;
    else if (this.list) this.list.selectedIndex = this.control.choices.indexOf(value);
    else if (this.field) {
      if (document.activeElement !== this.field) this.field.value = value;
    } else {
      this.range.value = Math.max(0, Math.min(this.scale.most, this.scale.from(Math.max(value, this.control.log ? 1e-300 : -Infinity))));
      if (document.activeElement !== this.number || this.number.value.trim() === "") this.write(value);
    }
  }
}
