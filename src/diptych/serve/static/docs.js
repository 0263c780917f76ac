// The API as its OpenAPI document tells it, each call with a form to try it. Nothing is loaded from another host.
const at = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const one = Object.assign(document.createElement(name), properties);
  one.append(...children);
  return one;
}

const whole = await (await fetch("/openapi.json")).json();
at("summary").textContent = whole.info.summary;
at("key").value = sessionStorage.getItem("token") || "";
at("key").addEventListener("change", () => sessionStorage.setItem("token", at("key").value));

function follow(schema) {
  if (schema?.$ref) return follow(schema.$ref.split("/").slice(1).reduce((place, name) => place[name], whole));
  return schema?.anyOf ? { ...follow(schema.anyOf.find((one) => one.type !== "null")), ...schema } : schema;
}

function fieldsOf(call) {
  const [kind, body] = Object.entries(call.requestBody?.content || {})[0] || ["", {}];
  const schema = follow(body.schema), needed = new Set(schema?.required || []);
  const asked = (call.parameters || []).map((one) => ({ name: one.name, schema: follow(one.schema), description: one.description, needed: one.required, place: "query" }));
  const inside = Object.entries(schema?.properties || {}).map(([name, one]) => ({ name, schema: follow(one), description: one.description, needed: needed.has(name), place: kind }));
  return { kind, fields: [...asked, ...inside] };
}

const isFile = (schema) => [schema, schema.items, ...(schema.anyOf || [])].some((one) => one?.contentMediaType || one?.format === "binary");

function inputOf(field) {
  const { schema } = field;
  const many = schema.type === "array";
  if (isFile(schema)) return make("input", { type: "file", accept: "image/*", multiple: many });
  if (many) return make("textarea", { rows: 3, placeholder: "one a line" });
  const example = schema.examples?.[0] ?? schema.default;
  const text = example === undefined || example === null ? "" : typeof example === "object" ? JSON.stringify(example) : String(example);
  return make("input", { type: schema.type === "integer" ? "number" : "text", value: field.name === "where" ? "" : text, placeholder: field.name === "where" ? text : "" });
}

function bodyOf(kind, fields, inputs) {
  const query = new URLSearchParams(), json = {}, form = new FormData();
  fields.forEach((field, place) => {
    const input = inputs[place];
    const values = input.type === "file" ? [...input.files] : input.tagName === "TEXTAREA" ? input.value.split("\n").filter(Boolean) : input.value ? [input.value] : [];
    for (const value of values) {
      if (field.place === "query") query.append(field.name, value);
      else if (kind === "application/json") json[field.name] = field.schema.type === "string" ? value : JSON.parse(value);
      else form.append(field.name, value);
    }
  });
  return { query: query.size ? `?${query}` : "", body: kind === "application/json" ? JSON.stringify(json) : kind ? form : undefined };
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function command(path, method, kind, { query, body }) {
  const words = ["curl", quoted(location.origin + path + query)];
  if (at("key").value) words.push("-H", '"Authorization: Bearer $DIPTYCH_TOKEN"');
  if (kind === "application/json") words.push("-H", "'Content-Type: application/json'", "-d", quoted(body));
  else if (body) for (const [name, value] of body) words.push("-F", quoted(value instanceof File ? `${name}=@${value.name}` : `${name}=${value}`));
  else if (method !== "get") words.push("-X", method.toUpperCase());
  return words.join(" ");
}

async function attempt(path, method, kind, fields, inputs, shown) {
  try {
    const asked = bodyOf(kind, fields, inputs), key = at("key").value;
    const headers = { ...(kind === "application/json" ? { "Content-Type": kind } : {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const answer = await fetch(path + asked.query, { method, body: asked.body, headers });
    const parts = [make("pre", { textContent: command(path, method, kind, asked) }), make("p", { className: "soft", textContent: `${answer.status} ${answer.statusText}` })];
    if (answer.headers.get("content-type").startsWith("image/")) parts.push(make("img", { src: URL.createObjectURL(await answer.blob()), alt: "" }));
    else {
      const text = await answer.text();
      parts.push(make("pre", { textContent: answer.headers.get("content-type").includes("json") ? JSON.stringify(JSON.parse(text), null, 2) : text }));
    }
    shown.replaceChildren(...parts);
  } catch (error) {
    shown.replaceChildren(make("pre", { textContent: String(error.message) }));
  }
}

function draw(path, method, call) {
  const { kind, fields } = fieldsOf(call), inputs = fields.map(inputOf), shown = make("div");
  const form = make("form", { onsubmit: (event) => { event.preventDefault(); attempt(path, method, kind, fields, inputs, shown); } });
  fields.forEach((field, place) => {
    inputs[place].setAttribute("aria-label", field.name);
    form.append(make("div", { className: "field" }, make("code", { textContent: field.name + (field.needed ? " *" : "") }), inputs[place], make("small", { textContent: field.description || "" })));
  });
  form.append(make("button", { type: "submit", textContent: "Try" }));
  const rows = Object.entries(call.responses).map(([status, one]) => make("tr", {}, make("td", { textContent: status }), make("td", { textContent: one.description })));
  const [first, ...rest] = call.description.split("\n\n");
  return make("details", {},
    make("summary", {}, make("b", { textContent: method.toUpperCase() }), make("code", { textContent: path }), make("span", { textContent: first })),
    make("div", { className: "inside" }, ...rest.filter((one) => !one.startsWith("Raises")).map((one) => make("p", { textContent: one })), make("p", { className: "soft", textContent: kind }), form, shown,
      make("details", {}, make("summary", { textContent: "Answers" }), make("div", { className: "inside" }, make("table", {}, ...rows)))));
}

const groups = {};
for (const [path, methods] of Object.entries(whole.paths)) {
  for (const [method, call] of Object.entries(methods)) (groups[call.tags[0]] ||= []).push(draw(path, method, call));
}
for (const [name, calls] of Object.entries(groups).sort(([one], [two]) => (one === "server") - (two === "server"))) {
  at("calls").append(make("h2", { textContent: name[0].toUpperCase() + name.slice(1) }), ...calls);
}
