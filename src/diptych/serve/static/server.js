// How the page asks the server: JSON and forms, with the token where one is needed.
import { say } from "./words.js";

const found = new URLSearchParams(location.hash.slice(1)).get("token");
if (found) {
  sessionStorage.setItem("token", found);
  history.replaceState(null, "", location.pathname);
}

export class Refused extends Error {}

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function request(path, options, again = true) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(say("error.network"));
  }
  if (answer.status === 401 && again) {
    await enter();
    return request(path, options, again);
  }
  if (!answer.ok) throw new Refused((await answer.json().catch(() => ({ error: answer.statusText }))).error);
  return answer;
}

let entering = null;

function enter() {
  if (entering) return entering;
  const door = document.getElementById("door"), input = document.getElementById("door-token");
  door.showModal();
  input.focus();
  entering = new Promise((done) => door.addEventListener("close", () => {
    sessionStorage.setItem("token", input.value);
    entering = null;
    done();
  }, { once: true }));
  return entering;
}

export async function get(path) {
  return (await request(path, {})).json();
}

export async function post(path, body, signal) {
  const form = body instanceof FormData;
  const options = { method: "POST", body: form ? body : JSON.stringify(body), signal, headers: form ? {} : { "Content-Type": "application/json" } };
  return (await request(path, options)).json();
}

// A picture by its address; with a token the browser must fetch it as we ask, since an <img> sends none.
export function show(image, address) {
  if (!sessionStorage.getItem("token")) {
    image.src = address;
    return;
  }
  request(address, {}).then((answer) => answer.blob()).then((blob) => {
    image.onload = () => URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
  }).catch(() => image.dispatchEvent(new Event("error")));
}
