// The content of a message, shown so that it can do nothing.
//
// Three walls: the frame is sandboxed (no script, no form, no way out), it inherits the policy of
// message.html (nothing is loaded, and it goes nowhere), and what could ask for something is taken
// out, links included: one that is clicked would only bring the browser's own page of error.

import { h } from './dom.js';

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
const HEAD = `<!doctype html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta http-equiv="x-dns-prefetch-control" content="off">
<meta name="referrer" content="no-referrer">`;
const OUT = 'base, embed, frame, frameset, iframe, link, meta, object, portal, script';

/**
 * The HTML of a message without what loads or leads anywhere by itself. `Parser` runs and loads
 * nothing.
 */
function harmless(html, Parser) {
  const parsed = new Parser().parseFromString(html, 'text/html');
  for (const node of parsed.querySelectorAll(OUT)) node.remove();
  for (const link of parsed.querySelectorAll('a, area')) {
    // Where it would lead is worth knowing.
    link.setAttribute('title', link.getAttribute('href') ?? '');
    for (const name of ['href', 'xlink:href', 'ping']) link.removeAttribute(name);
  }
  return HEAD + parsed.documentElement.outerHTML;
}

/** The message in all its forms. It is built once: the patching of the page leaves it alone. */
export function message(content) {
  const parts = [];
  if (content.html) parts.push(['As HTML', frame(content.html)]);
  if (content.text)
    parts.push([
      'As text',
      h('pre', { tabindex: '0', 'aria-label': 'Message as text' }, content.text),
    ]);
  if (content.html)
    parts.push([
      'HTML source',
      h('pre', { tabindex: '0', 'aria-label': 'Source of the message' }, content.html),
    ]);
  const note = 'Scripts, forms and links do not work in it, and nothing is loaded from elsewhere.';
  return h(
    'div',
    { class: 'message', 'data-key': 'message', 'data-keep': true },
    content.replyTo && h('p', {}, 'Answers go to ', h('b', {}, content.replyTo), '.'),
    content.html && h('p', { class: 'note' }, note),
    parts.map(([name, shown], index) =>
      h('details', { open: index === 0 }, h('summary', {}, name), shown),
    ),
  );
}

function frame(html) {
  const outer = h('iframe', {
    class: 'letter',
    src: new URL('message.html', import.meta.url),
    title: 'Message as HTML',
    referrerpolicy: 'no-referrer',
  });
  outer.addEventListener(
    'load',
    () => {
      // The parser is of the frame's window too: to the policy of this page, styles are a breach.
      outer.contentDocument.querySelector('iframe').srcdoc = harmless(
        html,
        outer.contentWindow.DOMParser,
      );
    },
    { once: true },
  );
  return outer;
}
