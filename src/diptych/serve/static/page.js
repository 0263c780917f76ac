// The page: tabs, search and its grid, the card of a picture, and forms about one picture.
import { get, post, show, Refused } from "./server.js";
import { change, other, say, translate } from "./words.js";

const at = (id) => document.getElementById(id);
const FIRST = 24;
const TABS = { search: "search", tags: "tags", why: "explain", caption: "caption", ask: "ask", generate: "generate" };
let about = null, tab = "", asked = null, results = [], took = 0, opened = -1, running = null, toastTimer = 0;
const pictures = {}; // what each tab with a picture holds: a file and its address

function make(name, properties = {}, ...children) {
  const one = Object.assign(document.createElement(name), properties);
  one.append(...children);
  return one;
}

function complain(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Refused)) console.error(error);
  at("toast").textContent = error.message;
  at("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { at("toast").hidden = true; }, 6000);
}

async function during(place, work) {
  const buttons = [...place.querySelectorAll("button")];
  buttons.forEach((one) => { one.disabled = true; });
  try { await work(); } catch (error) { complain(error); }
  buttons.forEach((one) => { one.disabled = false; });
}

// Tabs

function choose(name, focus = false) {
  tab = name;
  for (const one of document.querySelectorAll(".tab")) one.hidden = one.id !== name;
  for (const one of at("tabs").children) {
    const mine = one.dataset.tab === name;
    one.setAttribute("aria-selected", mine);
    one.tabIndex = mine ? 0 : -1;
    if (mine && focus) one.focus();
  }
}

// A model that only answers explains its answers, where they stand.
const offers = (name) => about.offers.includes(TABS[name]) && (name !== "why" || about.offers.some((one) => one === "tags" || one === "caption"));

function drawTabs() {
  const offered = Object.keys(TABS).filter(offers);
  at("tabs").replaceChildren(...offered.map((name) => {
    const one = make("button", { type: "button", textContent: say(`tab.${name}`), onclick: () => go(name) });
    one.dataset.tab = name;
    one.setAttribute("role", "tab");
    one.setAttribute("aria-controls", name);
    return one;
  }));
  choose(offered.includes(tab) ? tab : offered[0]);
}

function go(name, focus = false) {
  choose(name, focus);
  history.pushState(null, "", name === "search" ? "#" : `#${name}`);
}

at("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const names = [...at("tabs").children].map((one) => one.dataset.tab);
  go(names[(names.indexOf(tab) + step + names.length) % names.length], true);
});

// Search

function drawGrid() {
  at("results").replaceChildren(...results.map((hit, place) => {
    const item = make("li");
    item.style.setProperty("--ratio", Math.min(Math.max((hit.width || 1) / (hit.height || 1), 0.5), 2.6));
    const button = make("button", { type: "button", onclick: () => openCard(place) });
    button.setAttribute("aria-label", firstLine(hit));
    if (hit.picture) {
      const image = make("img", { alt: "", loading: "lazy", decoding: "async" });
      image.onerror = () => button.replaceChildren(make("span", { className: "gone", textContent: say("picture.gone") }));
      show(image, `${hit.picture}&side=${innerWidth > 720 ? 640 : 320}`);
      button.append(image);
    } else {
      button.append(make("span", { className: "gone", textContent: firstLine(hit) }));
    }
    item.append(button);
    if (asked) item.append(make("span", { className: "score", textContent: hit.score.toFixed(3) }));
    if (hit.text) item.append(make("span", { className: "text", textContent: firstLine(hit) }));
    return item;
  }));
}

const firstLine = (hit) => (hit.text || hit.id).split("\n")[0];

function drawSearch() {
  drawGrid();
  const image = at("search-asked");
  image.hidden = !(asked && asked.address);
  if (asked && asked.address) {
    if (asked.address.startsWith("blob:")) image.src = asked.address; else show(image, asked.address);
  }
  at("more").hidden = !asked || results.length < asked.k || asked.k >= Math.min(about.limits.results, about.pictures - (asked.id ? 1 : 0));
  const count = about.pictures.toLocaleString();
  const found = results.length ? say("search.found", results.length, count, took) : say("search.none");
  at("search-note").textContent = asked ? (asked.id || asked.file ? `${say("search.like")}: ${found}` : found) : say("search.sample", count);
}

async function search(question) {
  running?.abort();
  running = new AbortController();
  asked = { k: FIRST, ...question };
  at("results").classList.add("busy");
  try {
    const answer = await (asked.file ? post("/api/search/picture", form({ picture: asked.file, k: asked.k }), running.signal)
      : asked.id ? post("/api/search/id", { id: asked.id, k: asked.k }, running.signal)
        : post("/api/search/text", { text: asked.text, k: asked.k }, running.signal));
    results = answer.results;
    took = Math.round(answer.milliseconds);
    drawSearch();
    at("results").classList.remove("busy");
  } catch (error) {
    if (error.name !== "AbortError") at("results").classList.remove("busy");
    complain(error);
  }
}

function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) for (const one of [value].flat()) body.append(name, one);
  return body;
}

at("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("search-text").value.trim();
  if (!text) return at("search-text").focus();
  history.pushState(null, "", `#q=${encodeURIComponent(text)}`);
  search({ text });
});
at("search-file").addEventListener("change", (event) => take(event.target.files[0]));
document.querySelector(".pick").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); at("search-file").click(); }
});
at("more").addEventListener("click", () => search({ ...asked, k: Math.min(asked.k * 2, about.limits.results) }));

function like(hit) {
  at("card").close();
  at("search-text").value = "";
  history.pushState(null, "", `#id=${encodeURIComponent(hit.id)}`);
  choose("search");
  scrollTo(0, 0);
  search({ id: hit.id, address: hit.picture && `${hit.picture}&side=160` });
}

// The card of one picture

function openCard(place) {
  opened = place;
  const hit = results[place];
  at("card-text").textContent = firstLine(hit);
  at("card-more").textContent = (hit.text || "").split("\n").slice(1).join("\n");
  const plain = (value) => [value].flat().every((one) => one !== null && typeof one !== "object");
  const facts = Object.entries(hit.metadata).filter(([, value]) => plain(value)).map(([name, value]) => `${name}: ${[value].flat().join(", ")}`);
  at("card-facts").textContent = [hit.text ? hit.id : "", ...facts].filter(Boolean).join("  ·  ");
  const image = make("img", { className: "whole", alt: firstLine(hit) });
  shape(at("card-frame"), hit.width, hit.height);
  image.onerror = () => at("card-frame").replaceChildren(make("p", { className: "gone", textContent: say("picture.gone") }));
  at("card-frame").replaceChildren(image);
  at("card-why").replaceChildren();
  if (hit.picture) show(image, `${hit.picture}&side=1280`);
  for (const [id, step] of [["card-before", -1], ["card-next", 1]]) at(id).disabled = !results[place + step];
  if (!at("card").open) at("card").showModal();
  const text = asked && asked.text ? asked.text : firstLine(hit);
  if (about.offers.includes("explain") && hit.picture && (asked?.text || hit.text)) explain(hit, text, place);
}

function shape(frame, width, height) {
  if (width && height) frame.style.setProperty("--shape", width / height);
}

async function explain(hit, text, place) {
  at("card-why").replaceChildren(make("small", { textContent: say("why.wait") }));
  try {
    const why = await post("/api/explain", form({ id: hit.id, text: text.slice(0, about.limits.characters) }));
    if (opened === place && at("card").open) drawWhy(at("card-why"), at("card-frame"), why, say("why.text", text));
  } catch (error) {
    if (opened === place) at("card-why").replaceChildren();
    complain(error);
  }
}

function drawWhy(place, framed, why, title) {
  const frame = framed || make("div"); // a picture that only the server can show
  frame.querySelector(".heat")?.remove();
  const heat = make("img", { className: "heat", src: why.heat, alt: "" });
  const share = (value) => `${value * 100}%`;
  Object.assign(heat.style, { left: share(why.area.left), top: share(why.area.top), width: share(why.area.width), height: share(why.area.height) });
  frame.append(heat);
  const maps = why.answers.length ? [] : why.parts; // of a caption: a map for each word
  const words = why.words.map(({ word, weight }, number) => {
    const one = make(maps.length ? "button" : "span", { textContent: word, title: weight.toFixed(2) });
    one.style.setProperty("--weight", weight);
    if (!maps.length) return one;
    one.type = "button";
    one.setAttribute("aria-pressed", false);
    one.onclick = () => {
      const now = one.getAttribute("aria-pressed") !== "true";
      for (const other of words) other.setAttribute("aria-pressed", now && other === one);
      heat.src = now ? maps[number].heat : why.heat;
    };
    return one;
  });
  const shown = make("input", { type: "checkbox", checked: true, onchange: () => frame.classList.toggle("bare", !shown.checked) });
  frame.classList.remove("bare");
  place.replaceChildren(
    make("strong", { textContent: title }), make("div", { className: "words" }, ...words),
    ...(maps.length ? [make("small", { textContent: say("why.word") })] : []),
    make("small", { textContent: `${say(why.unit === "cosine" ? "why.score" : "why.chance", why.score.toFixed(3))}. ${say("why.how", why.method, why.word_method)}` }),
    make("label", {}, shown, say("why.show")),
  );
}

at("card-close").onclick = () => at("card").close();
at("card-like").onclick = () => like(results[opened]);
at("card-before").onclick = () => openCard(opened - 1);
at("card-next").onclick = () => openCard(opened + 1);
at("card").addEventListener("click", (event) => { if (event.target === at("card")) at("card").close(); });
at("card").addEventListener("close", () => at("results").children[opened]?.querySelector("button").focus());
at("card").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && results[opened + step] && event.target.type !== "checkbox") openCard(opened + step);
});

// Pictures that are dropped, pasted or chosen

function take(file) {
  if (!file || tab === "generate") return;
  const most = about.limits.megabytes;
  if (file.size > most * 1e6) return complain(new Refused(say("picture.large", (file.size / 1e6).toFixed(1), most)));
  const address = URL.createObjectURL(file);
  if (tab === "search") {
    at("search-text").value = "";
    search({ file, address });
    return;
  }
  if (pictures[tab]) URL.revokeObjectURL(pictures[tab].address);
  pictures[tab] = { file, address };
  drawDrop(document.querySelector(`[data-drop="${tab}"]`));
  for (const part of ["found", "why"]) at(`${tab}-${part}`)?.replaceChildren();
  at(`${tab}-form`).querySelector("textarea, input, button").focus();
}

function drawDrop(place) {
  const held = pictures[place.dataset.drop];
  const input = make("input", { type: "file", accept: "image/*", onchange: () => take(input.files[0]) });
  const label = make("label", {}, say(held ? "picture.other" : "picture.drop"), input);
  place.classList.toggle("full", Boolean(held));
  place.replaceChildren(label);
  if (!held) return;
  const image = make("img", { className: "whole", src: held.address, alt: "" });
  const frame = make("div", { className: "frame" }, image);
  image.onload = () => shape(frame, image.naturalWidth, image.naturalHeight);
  image.onerror = () => frame.replaceWith(held.file.name); // the browser cannot show it, the server may
  place.prepend(frame);
}

addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); take(file); }
});

// Forms about one picture

function onePicture(name, work) {
  at(`${name}-form`).addEventListener("submit", (event) => {
    event.preventDefault();
    during(event.target, async () => {
      if (!pictures[name]) throw new Refused(say("picture.first"));
      await work(pictures[name].file);
    });
  });
}

function typed(id) {
  const text = at(id).value.trim();
  if (!text) { at(id).focus(); throw new Refused(say("error.text")); }
  return text;
}

function bar(name, share) {
  const line = make("i");
  line.style.setProperty("--share", share);
  return [make("b", { textContent: name }), make("span", { textContent: `${(share * 100).toFixed(1)} %` }), line];
}

function bars(place, pairs) {
  place.replaceChildren(...pairs.map(([name, share]) => make("li", {}, ...bar(name, share))));
}

onePicture("tags", async (picture) => {
  const labels = typed("tags-labels").split(/[\n,，;；]/).map((one) => one.trim()).filter(Boolean);
  const { tags } = await post("/api/tags", form({ picture, labels }));
  bars(at("tags-found"), tags.map((tag) => [tag.label, tag.probability]));
});
onePicture("why", async (picture) => {
  const text = typed("why-text");
  const why = await post("/api/explain", form({ picture, text }));
  drawWhy(at("why-found"), document.querySelector('[data-drop="why"] .frame'), why, say("why.text", text));
});
onePicture("caption", async (picture) => {
  const { captions } = await post("/api/caption", form({ picture, count: 3 }));
  choices("caption", picture, captions.map((one) => [one.text, one.log_prob.toFixed(1), make("span", { textContent: one.text })]),
    (text) => [{ text }, say("caption.why")]);
});
onePicture("ask", async (picture) => {
  const question = typed("ask-text");
  const { answers } = await post("/api/ask", form({ picture, question }));
  choices("ask", picture, answers.map((one) => [one.answer, "", bar(one.answer, one.probability)]),
    (answer) => [{ text: question, answer }, say("ask.why", answer)]);
});

// What a model told, each of which can be chosen to see why; the first one is.
function choices(name, picture, told, wanted) {
  const place = at(`${name}-why`);
  const all = told.map(([text, title, shown]) => {
    const one = make("button", { type: "button", title, onclick: () => why(one, text) }, ...[shown].flat());
    return one;
  });
  async function why(one, text) {
    for (const other of all) other.setAttribute("aria-pressed", other === one);
    const [fields, title] = wanted(text);
    place.replaceChildren(make("small", { textContent: say("why.wait") }));
    try {
      const found = await post("/api/explain", form({ picture, ...fields }));
      if (one.isConnected && one.getAttribute("aria-pressed") === "true") drawWhy(place, document.querySelector(`[data-drop="${name}"] .frame`), found, title);
    } catch (error) { place.replaceChildren(); complain(error); }
  }
  at(`${name}-found`).replaceChildren(...all.map((one) => make("li", { className: "choice" }, one)));
  if (all.length) why(all[0], told[0][0]);
}
at("why-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); at("why-form").requestSubmit(); }
});

// Drawing

let drawn = { text: "", seed: 0 };

function draw(text, seed) {
  during(at("generate"), async () => {
    const { pictures } = await post("/api/generate", { text, seed, count: 8 });
    drawn = { text, seed };
    at("generate-found").replaceChildren(...pictures.map((src, number) => make("li", {}, make("a", { href: src, download: `${text.slice(0, 60)} ${seed}-${number + 1}.png` }, make("img", { src, alt: `${text} (${number + 1})` })))));
    at("generate-other").hidden = false;
  });
}

at("generate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("generate-text").value.trim();
  if (!text) return at("generate-text").focus();
  draw(text, text === drawn.text ? drawn.seed + 1 : 0);
});
at("generate-other").addEventListener("click", () => draw(drawn.text, drawn.seed + 1));

// The whole

function drawAll() {
  translate();
  at("language").textContent = other();
  if (!about) return;
  drawTabs();
  document.querySelectorAll(".drop").forEach(drawDrop);
  at("about").textContent = say("about", about.system, about.version);
}

function follow() {
  at("card").close();
  const place = new URLSearchParams(location.hash.slice(1)), name = location.hash.slice(1);
  if (offers(name)) return choose(name);
  if (!about.offers.includes("search")) return;
  choose("search");
  at("search-text").value = place.get("q") || "";
  if (place.get("q")) return search({ text: place.get("q") });
  if (place.get("id")) return search({ id: place.get("id"), address: `/api/picture?side=160&${new URLSearchParams({ id: place.get("id") })}` });
  asked = null;
  results = about.sample;
  drawSearch();
}

at("language").onclick = () => {
  change();
  drawAll();
  if (about?.offers.includes("search") && results.length) drawSearch();
};
at("home").onclick = (event) => { event.preventDefault(); history.pushState(null, "", "#"); follow(); };
addEventListener("popstate", () => about && follow());
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName) && tab === "search") {
    event.preventDefault();
    at("search-text").focus();
  }
});

drawAll();
get("/api/about").then((answer) => {
  about = answer;
  drawAll();
  follow();
  if (tab === "search" && matchMedia("(hover: hover)").matches) at("search-text").focus();
}).catch(complain);
