// The page: which view is shown, when it is read again, and what a click does.

import * as act from './act.js';
import { get, hasToken, Problem, useToken } from './api.js';
import { letter, notification, showMessage } from './detail.js';
import { say, signIn } from './dialog.js';
import { h, patch } from './dom.js';
import { deadLetters, find, jobs } from './lists.js';
import { overview } from './overview.js';

const VIEWS = { overview, jobs, deadletters: deadLetters, notification, letter };
/** The views that an address without an id may name. */
const TABS = ['overview', 'jobs', 'deadletters'];
const AGAIN_MS = 3000;
// A server that is slow to answer is asked more rarely: it is busy for at most a fifth of the time.
const REST_FACTOR = 4;

const byId = (id) => document.getElementById(id);
const main = byId('main');
const trouble = byId('trouble');

let route = null;
let turn = 0;
let timer;
let isPaused = false;
let updatedAt = null;
let isSigningIn = false;

function parse() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const [first, id] = path.split('/').map(decoded);
  const found = { query: Object.fromEntries(new URLSearchParams(query)), id };
  if (first === 'notifications' && id) return { ...found, view: 'notification', tab: 'jobs' };
  if (first === 'deadletters' && id) return { ...found, view: 'letter', tab: 'deadletters' };
  const view = TABS.includes(first) && !id ? first : 'overview';
  return { ...found, view, tab: view };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Shows what the address says. */
function go() {
  const before = route;
  route = parse();
  for (const link of document.querySelectorAll('nav a[data-view]')) {
    if (link.dataset.view === route.tab) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  byId('dialog').close();
  const isSame = before && before.view === route.view && before.id === route.id;
  if (!isSame) {
    main.replaceChildren(h('p', { class: 'empty' }, 'Loading…'));
    isSigningIn = false;
  }
  load({ isNew: true, isSame });
}

/** Reads the view and draws it; then again, for as long as somebody looks. */
async function load({ isNew = false, isSame = true } = {}) {
  clearTimeout(timer);
  const mine = ++turn;
  const [here, view] = [route, VIEWS[route.view]];
  const begun = performance.now();
  main.setAttribute('aria-busy', String(isNew));
  let problem = null;
  try {
    const found = await view.load(here);
    if (mine !== turn) return;
    draw(view.draw(found, here), isNew, isSame);
    document.title = `${view.title(found)} · breakglass-mailer`;
    updatedAt = Date.now();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (mine !== turn) return;
    problem = error;
  }
  main.setAttribute('aria-busy', 'false');
  tell(problem, isNew);
  if (problem?.status === 401) return askForToken();
  const rest = Math.max(problem ? AGAIN_MS : view.every, REST_FACTOR * (performance.now() - begun));
  if (!isPaused && !document.hidden) timer = setTimeout(load, rest);
}

function draw(nodes, isNew, isSame) {
  isSigningIn = false;
  patch(main, nodes.filter(Boolean));
  for (const field of main.querySelectorAll('form.filter [data-value]')) {
    // What is being typed or chosen stays until the address changes.
    if (isNew) field.value = field.dataset.value;
  }
  if (isNew && !isSame && document.activeElement?.closest('dialog') === null) {
    main.querySelector('h1')?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function tell(problem, isNew) {
  const isMissing = problem?.status === 404;
  const parts = [];
  if (problem && problem.status !== 401) {
    parts.push(problem.message.endsWith('.') ? problem.message : `${problem.message}.`);
    if (!isNew && !isMissing) parts.push('What is shown below may be old.');
    if (!isMissing) parts.push('Trying again…');
    const text = isMissing ? 'There is nothing to show.' : 'It cannot be read just now.';
    if (isNew) main.replaceChildren(h('p', { class: 'empty' }, text));
  }
  trouble.hidden = parts.length === 0;
  const text = parts.join(' ');
  // Only what changed is read out.
  if (trouble.textContent !== text) trouble.textContent = text;
  byId('sign-out').hidden = !hasToken();
  fresh(problem);
}

function fresh(problem) {
  const text = problem ? '● no data' : isPaused ? '❚❚ paused' : '● live';
  byId('fresh').textContent = text;
  byId('fresh').className = problem ? 'bad' : isPaused ? 'warn' : 'good';
  byId('fresh').title = updatedAt
    ? `Read at ${new Date(updatedAt).toLocaleTimeString()}`
    : 'Not read yet';
}

function askForToken() {
  if (isSigningIn) return;
  isSigningIn = true;
  turn++;
  clearTimeout(timer);
  const wasRefused = hasToken();
  useToken(null);
  byId('sign-out').hidden = true;
  const { form, field } = signIn(wasRefused, async (text) => {
    useToken(text);
    try {
      await get('queue');
    } catch (problem) {
      useToken(null);
      return problem;
    }
    go();
    return null;
  });
  main.replaceChildren(form);
  document.title = 'Sign in · breakglass-mailer';
  field.focus();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied: ${text}`);
  } catch {
    // Without https a browser may not let us.
    say(text);
  }
}

const ACTS = {
  retry: ({ id }) => act.retry(id),
  discard: ({ id }) => act.discard(id),
  cancel: ({ id }) => act.cancel(id),
  'retry-all': () =>
    act.retryAll({
      provider: route.query.provider,
      reason: route.query.reason,
      recipient: route.query.recipient,
    }),
  message: ({ id }) => showMessage(id),
  copy: (data) => copy(data.copy),
  skip: () => main.focus(),
  pause() {
    isPaused = !isPaused;
    byId('pause').setAttribute('aria-pressed', String(isPaused));
    byId('pause').textContent = isPaused ? 'Resume' : 'Pause';
    fresh(null);
  },
  'sign-out'() {
    useToken(null);
    askForToken();
  },
};

document.addEventListener('click', async (event) => {
  const button = event.target.closest('button[data-act]');
  if (!button) return;
  const { act: name, ...data } = button.dataset;
  try {
    const wasDone = await ACTS[name](data);
    if (wasDone && route.view === 'letter') {
      location.hash = '#/deadletters';
      return;
    }
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(error.message);
  }
  if (name !== 'copy' && name !== 'skip' && name !== 'sign-out') load();
});

/** A form of filters leads to an address, so that it can be kept and sent to a colleague. */
async function search(form) {
  const given = Object.fromEntries(
    [...new FormData(form)]
      .map(([name, value]) => [name, value.trim()])
      .filter(([, value]) => value),
  );
  try {
    const place = await find(given.recipient ?? '');
    if (place === '') return say('No notification and no dead letter has this id.');
    location.hash = place ?? `#/${form.dataset.view}?${new URLSearchParams(given)}`;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(error.message);
  }
}

document.addEventListener('submit', (event) => {
  const form = event.target.closest('form.filter');
  if (!form) return;
  event.preventDefault();
  search(form);
});
document.addEventListener('change', (event) => {
  if (event.target.matches('form.filter select')) search(event.target.form);
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !isPaused && !isSigningIn) load();
});
window.addEventListener('hashchange', go);
go();
