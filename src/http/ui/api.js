// Calls of the API, and who calls: a token lives as long as this tab and goes nowhere but into the
// Authorization header of calls to our own server.

import { setClock } from './words.js';

const BASE = new URL('../', import.meta.url);
const KEY = 'breakglass-mailer-token';
const TIME_MAX_MS = 20_000;

let token = sessionStorage.getItem(KEY);

export function hasToken() {
  return token !== null;
}

/** Uses this token from now on, or none. */
export function useToken(text) {
  token = text;
  if (text === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, text);
}

/** An answer that is no success; `status` is 0 when there was none. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super([title, detail].filter(Boolean).join(': '));
    this.status = status;
  }
}

/** The JSON of an answer, or null when it has no body. Throws a Problem. */
export async function call(method, path, body) {
  const headers = { accept: 'application/json' };
  if (token !== null) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  const options = {
    method,
    headers,
    cache: 'no-store',
    credentials: 'same-origin',
    redirect: 'error',
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(TIME_MAX_MS),
  };
  let answer;
  let text;
  try {
    answer = await fetch(new URL(path, BASE), options);
    text = await answer.text();
  } catch {
    throw new Problem(0, 'The server does not answer');
  }
  setClock(answer.headers.get('date'));
  const said = parsed(text);
  if (!answer.ok) throw problem(answer, said);
  if (said === undefined) throw new Problem(0, 'Something in front of the server answered');
  return said;
}

/** The JSON of a text, null of an empty one, undefined of one that is none. */
function parsed(text) {
  try {
    return text === '' ? null : JSON.parse(text);
  } catch {
    return undefined;
  }
}

function problem(answer, said) {
  const told = Array.isArray(said?.errors) ? said.errors : [];
  const errors = told.map((error) => `${error.pointer} ${error.detail}`);
  const detail = [said?.detail, ...errors].filter(Boolean).join(' ');
  return new Problem(answer.status, said?.title ?? `The server answered ${answer.status}`, detail);
}

export function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value);
  return call('GET', given.length ? `${path}?${new URLSearchParams(given)}` : path);
}
