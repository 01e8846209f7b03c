"use strict";
const articles = [...document.querySelectorAll(".card")];
const state = CARDS.map((card) => ({ text: card.text, accepted: false }));
let show = "all", unsaved = false;

try {  // some browsers refuse storage to pages opened from disk
  const drafts = JSON.parse(localStorage.getItem(STORE) || "{}");
  CARDS.forEach((card, k) => {
    const draft = drafts[card.id];
    if (draft && draft.from === card.text && !card.locked) { state[k] = { text: draft.text, accepted: draft.accepted }; unsaved = true; }
  });
} catch { /* drafts are a convenience */ }

function keep() {
  unsaved = true;
  const drafts = {};
  CARDS.forEach((card, k) => {
    if (state[k].text !== card.text || state[k].accepted) drafts[card.id] = { from: card.text, ...state[k] };
  });
  try { localStorage.setItem(STORE, JSON.stringify(drafts)); } catch { /* as above */ }
}

const clean = (text) => text.trim().split(/\s+/).filter(Boolean).join(" ");
const lookWords = (text) => LOOK.filter((word) =>
  new RegExp(`(?<![\\w])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\w])`).test(clean(text.toLowerCase()).replaceAll("-", " ")));

function draw(k) {
  const article = articles[k], { text, accepted } = state[k], words = clean(text) ? clean(text).split(" ").length : 0;
  const count = article.querySelector(".count");
  count.textContent = `${words} word${words === 1 ? "" : "s"}`;
  count.classList.toggle("off", CARDS[k].kind !== "human" && (words < LOW || words > HIGH));
  article.classList.toggle("accepted", accepted);
  const box = article.querySelector(".ok");
  if (box) { box.checked = accepted; box.disabled = !words; }
  const found = text === CARDS[k].text && CARDS[k].notes.length ? CARDS[k].notes
    : lookWords(text).map((word) => `“${word}” describes the look`);
  article.querySelector(".notes").replaceChildren(...found.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
}

function fits(k) {
  const card = CARDS[k], asked = document.getElementById("search").value.toLowerCase().trim();
  const kind = show === "all" || card.kind === show || (show === "noted" && card.notes.length > 0) ||
    (show === "open" && card.kind !== "human" && !state[k].accepted);
  return kind && (!asked || `${card.id} ${card.entry.file_name} ${state[k].text}`.toLowerCase().includes(asked));
}

function filter() {
  articles.forEach((article, k) => { article.hidden = !fits(k); });
  document.getElementById("nothing").hidden = articles.some((article) => !article.hidden);
}

function tell() {
  const own = CARDS.filter((card, k) => card.kind === "human" || state[k].accepted).length;
  document.getElementById("progress").textContent = `${own} of ${CARDS.length} by a person`;
  document.getElementById("download").disabled = !state.some((one) => one.accepted);
}

function accept(k, value) {
  if (CARDS[k].locked || (value && !clean(state[k].text))) return;
  state[k].accepted = value;
  draw(k);
}

function metadata() {
  const rows = KEPT.map((row) => ({ ...row }));
  CARDS.forEach((card, k) => {
    const text = clean(state[k].text);
    if (!state[k].accepted || !text) return;
    const own = rows.find((row) => row.file_name === card.entry.file_name && row.shot !== undefined && Number(row.shot) === card.entry.shot);
    if (own) Object.assign(own, { start_frame: card.entry.start_frame, text });
    else rows.push({ ...card.entry, text });
  });
  return rows.map((row) => JSON.stringify(row) + "\n").join("");
}

articles.forEach((article, k) => {
  const area = article.querySelector("textarea"), box = article.querySelector(".ok");
  area.value = state[k].text;
  area.addEventListener("input", () => { state[k].text = area.value; accept(k, Boolean(clean(area.value))); draw(k); tell(); keep(); });
  if (box) box.addEventListener("change", () => { accept(k, box.checked); tell(); keep(); });
  draw(k);
});
document.getElementById("search").addEventListener("input", filter);
document.querySelectorAll("[data-show]").forEach((button) => button.addEventListener("click", () => {
  show = button.dataset.show;
  document.querySelectorAll("[data-show]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  filter();
}));
document.getElementById("accept").addEventListener("click", () => {
  CARDS.forEach((card, k) => { if (card.kind !== "human" && fits(k)) accept(k, true); });
  tell(); keep();
});
document.getElementById("download").addEventListener("click", () => {
  const link = Object.assign(document.createElement("a"), { download: "metadata.jsonl" });
  link.href = URL.createObjectURL(new Blob([metadata()], { type: "application/jsonl" }));
  link.click();
  unsaved = false;
});
addEventListener("beforeunload", (event) => { if (unsaved && state.some((one) => one.accepted)) event.preventDefault(); });
tell();
