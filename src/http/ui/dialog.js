// Questions: nothing is done without one that says what it will touch.

import { Problem } from './api.js';
import { h } from './dom.js';

const dialog = document.getElementById('dialog');
const said = document.getElementById('said');
const SAID_MS = 12_000;
let fading;

/** Tells what was done, also to those who hear the page. */
export function say(text) {
  said.textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => said.replaceChildren(), SAID_MS);
}

/**
 * Asks, and runs `run` with the form's fields when the answer is yes. A Problem is shown in the
 * dialog, which stays open; otherwise what `run` answers is said. Without `verb` it only tells.
 * Answers whether it was done.
 */
export function ask({ title, body, verb, isGrave = false, run }) {
  return new Promise((resolve) => {
    let isDone = false;
    const trouble = h('p', { class: 'trouble', role: 'alert', hidden: true });
    const yes = verb && h('button', { type: 'submit', class: isGrave ? 'grave' : 'main' }, verb);
    const no = h('button', { type: 'button', class: 'no' }, verb ? 'Back' : 'Close');
    const form = h(
      'form',
      { method: 'dialog' },
      h('h2', { id: 'dialog-title' }, title),
      body,
      trouble,
      h('p', { class: 'acts' }, no, yes),
    );
    no.addEventListener('click', () => dialog.close());
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      if (yes.disabled) return;
      yes.disabled = true;
      trouble.hidden = true;
      try {
        say(await run(new FormData(form)));
        isDone = true;
        dialog.close();
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        trouble.textContent = error.message;
        trouble.hidden = false;
      } finally {
        yes.disabled = false;
      }
    });
    dialog.addEventListener(
      'close',
      () => {
        form.remove();
        resolve(isDone);
      },
      { once: true },
    );
    dialog.replaceChildren(form);
    dialog.showModal();
    // What is done for good is not under the finger that is already on Enter.
    (isGrave || !yes ? no : yes).focus();
  });
}

/** The form that asks for a token; `use` keeps one that the server takes. */
export function signIn(wasRefused, use) {
  const trouble = h(
    'p',
    { class: 'trouble', role: 'alert', hidden: !wasRefused },
    'The server does not take this token.',
  );
  const field = h('input', {
    id: 'token',
    name: 'token',
    type: 'password',
    required: true,
    autocomplete: 'off',
    spellcheck: 'false',
    'aria-describedby': 'token-help',
  });
  const form = h(
    'form',
    { class: 'sign-in', 'data-key': 'sign-in', 'data-keep': true },
    h('h1', { tabindex: '-1' }, 'Sign in'),
    h('p', { id: 'token-help' }, 'This server asks for a token. It is kept for this tab only.'),
    h('label', { for: 'token' }, 'Token'),
    field,
    trouble,
    h('p', { class: 'acts' }, h('button', { type: 'submit', class: 'main' }, 'Sign in')),
  );
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    trouble.hidden = true;
    const problem = await use(field.value.trim());
    if (!problem) return;
    trouble.textContent =
      problem.status === 401 ? 'The server does not take this token.' : problem.message;
    trouble.hidden = false;
    field.select();
  });
  return { form, field };
}
