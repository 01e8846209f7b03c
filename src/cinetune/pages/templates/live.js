"use strict";
// Served by cinetune, the page asks for itself again and takes over what changed; opened as a file, it stays as it is.
class Takes {
  constructor(root) {
    this.root = root;
    this.film = root.querySelector("video");
    this.slider = root.querySelector("input");
    this.button = root.querySelector("[data-do=play]");
    this.list = [];
    this.slider.oninput = () => this.show(Number(this.slider.value));
    this.button.onclick = () => { this.film.paused ? this.film.play().catch(() => {}) : this.film.pause(); };
    this.film.onplay = this.film.onpause = () => { this.button.textContent = this.film.paused ? "Play" : "Pause"; };
    this.take(root.querySelector(".list").textContent);
  }
  take(text) {
    const list = JSON.parse(text);
    const atEnd = Number(this.slider.value) >= this.list.length - 1;
    this.list = list;
    this.slider.max = Math.max(0, list.length - 1);
    if (list.length) this.show(atEnd ? list.length - 1 : Number(this.slider.value));
  }
  show(index) {
    const take = this.list[index];
    this.slider.value = index;
    this.slider.setAttribute("aria-valuetext", `step ${take.step}`);
    this.root.querySelector("output").textContent = `step ${take.step}`;
    this.root.querySelector(".said").textContent = take.said + (take.step ? "" : " (the untrained model)");
    if (this.film.dataset.path === take.path) return;
    const time = this.film.currentTime;
    this.film.dataset.path = take.path;
    this.film.src = take.path;
    this.film.onloadedmetadata = () => { this.film.currentTime = time; };
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.film.play().catch(() => {});
  }
}

let takes = [];
const open = () => { takes = [...document.querySelectorAll(".takes")].map((root) => new Takes(root)); };
open();

const pulse = document.querySelector("#pulse");
const swap = (old, fresh) => { if (old && fresh && old.innerHTML !== fresh.innerHTML) old.innerHTML = fresh.innerHTML; };
async function again() {
  let fresh;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch { pulse.textContent = "the run is over or was stopped; this is the last state seen"; return; }
  for (const part of document.querySelectorAll("[data-live]")) swap(part, fresh.getElementById(part.id));
  const coming = [...fresh.querySelectorAll(".takes")];
  if (coming.length !== takes.length) { swap(document.querySelector("#samples"), fresh.querySelector("#samples")); open(); }
  else coming.forEach((root, index) => {
    const text = root.querySelector(".list").textContent;
    if (text !== JSON.stringify(takes[index].list)) takes[index].take(text);
  });
  if (fresh.body.dataset.ended === "1") { pulse.textContent = "ended"; return; }
  pulse.textContent = `live, ${new Date().toLocaleTimeString()}`;
  setTimeout(again, Number(document.body.dataset.poll));
}
if (location.protocol.startsWith("http") && document.body.dataset.ended !== "1") again();
