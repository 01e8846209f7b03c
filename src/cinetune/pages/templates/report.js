"use strict";
// One player for each shot: its films share a clock, the first one leads. "Play all" plays whatever is on screen.
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

class Player {
  constructor(root) {
    this.films = [...root.querySelectorAll("video")];
    this.lead = this.films[0];
    this.rate = Number(root.dataset.rate);
    this.frames = Number(root.dataset.frames);
    this.button = root.querySelector("[data-do=play]");
    this.slider = root.querySelector("input[type=range]");
    this.count = root.querySelector("output");
    this.root = root;
    this.playing = false;
    this.button.onclick = () => { playAll.stop(); this.toggle(); };
    root.querySelector("[data-do=back]").onclick = () => this.step(-1);
    root.querySelector("[data-do=on]").onclick = () => this.step(1);
    this.slider.oninput = () => this.seek(Number(this.slider.value));
    root.addEventListener("pointerdown", () => { current = this; });
    root.addEventListener("focusin", () => { current = this; });
    for (const film of this.films) {
      film.controls = false;
      film.onclick = () => { playAll.stop(); this.toggle(); };
      film.onerror = () => film.closest("figure").classList.add("broken");
    }
    this.show();
  }
  get over() { return this.lead.ended || this.lead.currentTime >= this.lead.duration - 0.001; }
  get frame() { return Math.min(this.frames - 1, Math.floor(this.lead.currentTime * this.rate + 0.01)); }
  toggle() { this.playing ? this.pause() : this.play(); }
  play() {
    if (this.playing) return;
    this.playing = true;
    this.label();
    if (this.over || this.frame >= this.frames - 1) this.align(0);
    this.start();
    requestAnimationFrame(() => this.tick());
  }
  start() { for (const film of this.films) film.play().catch(() => {}); }
  pause() {
    this.playing = false;
    for (const film of this.films) film.pause();
    this.align(this.lead.currentTime);
    this.label();
    this.show();
  }
  align(time) { for (const film of this.films) film.currentTime = time; }
  seek(frame) {
    playAll.stop();
    if (this.playing) this.pause();
    this.align((Math.max(0, Math.min(this.frames - 1, frame)) + 0.5) / this.rate);
    this.show(frame);
  }
  step(by) { this.seek(this.frame + by); }
  tick() {
    if (!this.playing) return;
    if (this.over) { this.align(0); this.start(); }
    for (const film of this.films) {
      if (Math.abs(film.currentTime - this.lead.currentTime) > 1 / this.rate && !film.ended) film.currentTime = this.lead.currentTime;
    }
    this.show();
    requestAnimationFrame(() => this.tick());
  }
  label() { this.button.textContent = this.playing ? "Pause" : "Play"; }
  show(frame = this.frame) {
    const shown = Math.max(0, Math.min(this.frames - 1, frame));
    this.slider.value = shown;
    this.slider.setAttribute("aria-valuetext", `frame ${shown + 1} of ${this.frames}`);
    this.count.textContent = `${String(shown + 1).padStart(2, "0")} / ${this.frames}`;
  }
}

const playAll = {
  on: false,
  button: document.querySelector("[data-do=all]"),
  visible: new Set(),
  start() { this.on = true; this.label(); for (const player of this.visible) player.play(); },
  stop() { if (this.on) { this.on = false; this.label(); } },
  toggle() {
    if (this.on) { this.stop(); for (const player of players) player.pause(); } else this.start();
  },
  label() { this.button.textContent = this.on ? "Pause all" : "Play all"; },
};

let current = null;
const players = [...document.querySelectorAll(".shot")].map((root) => new Player(root));
if (playAll.button) playAll.button.onclick = () => playAll.toggle();

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const player = players.find((one) => one.root === entry.target);
    if (entry.isIntersecting) { playAll.visible.add(player); if (playAll.on && !calm) player.play(); }
    else { playAll.visible.delete(player); if (player.playing) player.pause(); }
  }
}, { threshold: 0.15 });
for (const player of players) watcher.observe(player.root);

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, button, summary, a") && event.key === " ") return;
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const player = current || [...playAll.visible][0];
  if (!player) return;
  const keys = {
    " ": () => { playAll.stop(); player.toggle(); },
    ArrowLeft: () => player.step(-1),
    ArrowRight: () => player.step(1),
    Home: () => player.seek(0),
    End: () => player.seek(player.frames - 1),
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

// A click on a column's head sorts by it: numbers by value, words by the alphabet; again turns the order.
const valueOf = (row, column) => {
  const text = row.cells[column] ? row.cells[column].textContent.trim().replace(/\u2212/g, "-") : "";
  const number = parseFloat(text.replace(/^[pq]\s+/, ""));
  return Number.isNaN(number) ? text.toLowerCase() : number;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = valueOf(a, column), y = valueOf(b, column);
        const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    };
    head.onclick = sort;
    head.onkeydown = (event) => { if (event.key === "Enter") sort(); };
  });
}

addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll(".shot details")) fold.open = true;
});

// How many films this browser could open, for whoever checks the page without eyes.
const films = [...document.querySelectorAll("video")];
const tell = () => {
  document.documentElement.dataset.films = `${films.filter((film) => film.readyState >= 2).length}/${films.length}`;
};
for (const film of films) film.addEventListener("loadeddata", tell);
tell();
