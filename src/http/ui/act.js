// What an operator can do: each with what it will touch, and a question before it.

import { call, get } from './api.js';
import { ask } from './dialog.js';
import { h } from './dom.js';
import { count, facts, reason, reply, some, state, time } from './words.js';

const SHOWN_MAX = 8;

async function enabledProviders() {
  const { items } = await get('providers');
  return items.filter((provider) => !provider.disabled).map((provider) => provider.name);
}

function letterFacts(letter) {
  return facts(
    ['To', letter.recipient],
    ['Subject', letter.subject || '(cannot be read)'],
    ['Provider', letter.provider],
    ['Given up', [reason(letter.reason), ' ', time(letter.deadAt)]],
    ['Last error', reply(letter.lastError)],
    ['Attempts', Array.isArray(letter.attempts) ? letter.attempts.length : letter.attempts],
  );
}

/** Queues one dead letter again. */
export async function retry(id) {
  const path = `deadletters/${encodeURIComponent(id)}`;
  const [letter, names] = await Promise.all([get(path), enabledProviders()]);
  const by = h(
    'select',
    { id: 'by', name: 'by' },
    h('option', { value: '' }, `as before: ${letter.chain.join(', then ')}`),
    names.map((name) => h('option', { value: name }, `only ${name}`)),
  );
  return ask({
    title: 'Send this dead letter again?',
    body: [
      letterFacts(letter),
      h('p', {}, h('label', { for: 'by' }, 'Sent by '), by),
      h('p', { class: 'note' }, 'It is queued now, with fresh attempts and a new age limit.'),
    ],
    verb: 'Send again',
    run: async (form) => {
      const to = form.get('by');
      await call('POST', `${path}/retry`, to ? { mailProvider: to } : {});
      return `Queued again: the mail to ${letter.recipient}.`;
    },
  });
}

/** Queues all dead letters again that `filter` takes. */
export async function retryAll(filter) {
  const given = Object.fromEntries(Object.entries(filter).filter(([, value]) => value));
  const page = await get('deadletters', { ...given, limit: SHOWN_MAX });
  const which = [
    given.provider && ['Provider', given.provider],
    given.reason && ['Reason', reason(given.reason)],
    given.recipient && ['Recipient contains', given.recipient],
  ].filter(Boolean);
  if (page.total === 0) {
    return ask({
      title: 'No dead letters match',
      body: [h('p', {}, 'There is nothing to send again.')],
    });
  }
  const rest = page.total - page.items.length;
  return ask({
    title: `Send ${some(page.total, 'dead letter')} again?`,
    body: [
      which.length
        ? facts(...which)
        : h('p', {}, 'No filter is set: these are ', h('b', {}, 'all dead letters'), '.'),
      h(
        'ul',
        { class: 'touched' },
        page.items.map((item) => h('li', {}, item.recipient, ' ', h('small', {}, item.subject))),
        rest > 0 && h('li', {}, `and ${count(rest)} more`),
      ),
      h(
        'p',
        { class: 'note' },
        'They are queued oldest first. What finds its queue full stays a dead letter. ',
        'Mail that becomes a dead letter meanwhile and matches is included.',
      ),
    ],
    verb: `Send ${count(page.total)} again`,
    run: async () => {
      const done = await call('POST', 'deadletters/retry', given);
      const refused = done.refused
        ? ` ${some(done.refused, 'dead letter')} found no place in a full queue.`
        : '';
      return `Queued again: ${some(done.retried, 'dead letter')}.${refused}`;
    },
  });
}

/** Takes a dead letter out for good. */
export async function discard(id) {
  const path = `deadletters/${encodeURIComponent(id)}`;
  const letter = await get(path);
  return ask({
    title: 'Delete this dead letter?',
    body: [
      letterFacts(letter),
      h(
        'p',
        { class: 'note' },
        h('b', {}, 'It is never delivered then'),
        ', and nothing brings it back.',
      ),
    ],
    verb: 'Delete',
    isGrave: true,
    run: async () => {
      await call('DELETE', path);
      return `Deleted: the mail to ${letter.recipient}.`;
    },
  });
}

/** Cancels the jobs of a notification that wait, its dead letters included. */
export async function cancel(id) {
  const path = `notifications/${encodeURIComponent(id)}`;
  const found = await get(path);
  const waiting = found.jobs.filter((job) => ['ready', 'scheduled', 'dead'].includes(job.state));
  const kept = found.jobs.filter((job) => !waiting.includes(job));
  const list = (jobs) =>
    h(
      'ul',
      { class: 'touched' },
      jobs.slice(0, SHOWN_MAX).map((job) => h('li', {}, state(job.state), ' ', job.recipient)),
      jobs.length > SHOWN_MAX && h('li', {}, `and ${count(jobs.length - SHOWN_MAX)} more`),
    );
  const stays = kept.length > 0 && [
    h('p', {}, 'In flight or at their end, and left as they are:'),
    list(kept),
  ];
  if (waiting.length === 0) {
    return ask({
      title: 'Nothing waits any more',
      body: [facts(['Subject', found.subject]), stays],
    });
  }
  return ask({
    title: `Cancel ${some(waiting.length, 'job')} of this notification?`,
    body: [
      facts(['Subject', found.subject]),
      h('p', {}, 'These are never delivered then:'),
      list(waiting),
      stays,
    ],
    verb: `Cancel ${some(waiting.length, 'job')}`,
    isGrave: true,
    run: async () => {
      const done = await call('DELETE', path);
      const kept = `Left as they were: ${count(done.kept.length)}.`;
      return `Cancelled: ${some(done.cancelled.length, 'job')}. ${kept}`;
    },
  });
}
