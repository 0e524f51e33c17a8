// Jobs and dead letters: a filter, a page of rows, and the way to the next.

import { get } from './api.js';
import { h } from './dom.js';
import { REASONS, STATES, count, id, reason, reply, state, time } from './words.js';

const PAGE_LEN = 50;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Where a search for this text leads: an id to what it names, anything else to `null`. */
export async function find(text) {
  if (!UUID.test(text)) return null;
  for (const path of ['notifications', 'deadletters']) {
    try {
      await get(`${path}/${text}`);
      return `#/${path}/${text}`;
    } catch (problem) {
      if (problem.status !== 404) throw problem;
    }
  }
  return '';
}

function choice(name, label, all, chosen, words = {}) {
  const options = chosen && !all.includes(chosen) ? [...all, chosen] : all;
  return h(
    'p',
    {},
    h('label', { for: `filter-${name}` }, label),
    h(
      'select',
      { id: `filter-${name}`, name, 'data-value': chosen ?? '' },
      h('option', { value: '' }, 'any'),
      options.map((value) =>
        h('option', { value, selected: value === chosen }, words[value] ?? value),
      ),
    ),
  );
}

function filter(view, query, names, second) {
  return h(
    'form',
    { class: 'filter', role: 'search', 'data-act': 'filter', 'data-view': view },
    h(
      'p',
      { class: 'wide' },
      h('label', { for: 'filter-recipient' }, 'Recipient or id'),
      h('input', {
        id: 'filter-recipient',
        name: 'recipient',
        type: 'search',
        maxlength: '254',
        autocomplete: 'off',
        spellcheck: 'false',
        placeholder: 'part of an address, or a whole id',
        value: query.recipient ?? '',
        'data-value': query.recipient ?? '',
      }),
    ),
    choice('provider', 'Provider', names, query.provider),
    second,
    h('p', {}, h('button', { type: 'submit' }, 'Search')),
  );
}

function hash(view, query) {
  const given = Object.entries(query).filter(([, value]) => value);
  return `#/${view}${given.length ? `?${new URLSearchParams(given)}` : ''}`;
}

function pages(view, query, next) {
  return h(
    'nav',
    { class: 'pages', 'aria-label': 'Pages' },
    query.cursor && h('a', { href: hash(view, { ...query, cursor: null }) }, 'Newest'),
    next && h('a', { href: hash(view, { ...query, cursor: next }) }, 'Older'),
  );
}

/** `columns` are head and cells, and the last column holds what can be done. */
function table(caption, columns, items, row) {
  const heads = columns.map((name) => h('th', { scope: 'col' }, name));
  // On a narrow screen rows become blocks; the roles keep it a table for those who hear it.
  return h(
    'table',
    { role: 'table' },
    h('caption', {}, caption),
    h('thead', {}, h('tr', {}, heads)),
    h(
      'tbody',
      { role: 'rowgroup' },
      items.map((item) =>
        h(
          'tr',
          { role: 'row', 'data-key': item.id },
          row(item).map((cell, index) =>
            h('td', { role: 'cell', 'data-label': columns[index], class: `c${index}` }, cell),
          ),
        ),
      ),
    ),
  );
}

function nothing(query, next, whenNone) {
  const isFiltered = query.recipient || query.provider || query.state || query.reason;
  const text = next
    ? 'Nothing matches in the part that was looked through. Older ones may.'
    : isFiltered || query.cursor
      ? 'Nothing matches.'
      : whenNone;
  return h('p', { class: 'empty' }, text);
}

async function providerNames() {
  const { items } = await get('providers');
  return items.map((provider) => provider.name);
}

/** `#/jobs` */
export const jobs = {
  every: 3000,
  title: () => 'Jobs',
  load: async ({ query }) => {
    const [page, names] = await Promise.all([
      get('jobs', { ...query, limit: PAGE_LEN }),
      providerNames(),
    ]);
    return { page, names };
  },
  draw({ page, names }, { query }) {
    const row = (job) => [
      state(job.state),
      [
        h('a', { href: `#/notifications/${job.notification}` }, job.recipient),
        job.redrive === 'automatic' && h('small', {}, ' parked: goes out by itself'),
      ],
      job.provider,
      count(job.attempts),
      time(job.nextAttemptAt),
      time(job.acceptedAt),
      id(job.id, 'job'),
      job.state === 'dead'
        ? h(
            'a',
            {
              class: 'button',
              href: `#/deadletters/${job.id}`,
              'aria-label': `Open the dead letter to ${job.recipient}`,
            },
            'Open',
          )
        : ['ready', 'scheduled'].includes(job.state) &&
          h(
            'button',
            {
              type: 'button',
              'data-act': 'cancel',
              'data-id': job.notification,
              'aria-label': `Cancel the notification to ${job.recipient}`,
            },
            'Cancel…',
          ),
    ];
    const columns = [
      'State',
      'Recipient',
      'Provider',
      'Attempts',
      'Next attempt',
      'Taken in',
      'Id',
      '',
    ];
    return [
      h('h1', { tabindex: '-1' }, 'Jobs'),
      filter(
        'jobs',
        query,
        names,
        choice('state', 'State', Object.keys(STATES), query.state, STATES),
      ),
      page.items.length
        ? table('Jobs, newest first', columns, page.items, row)
        : nothing(
            query,
            page.next,
            'There are no jobs: nothing was taken in, or all of it left the history.',
          ),
      pages('jobs', query, page.next),
    ];
  },
};

/** `#/deadletters` */
export const deadLetters = {
  every: 3000,
  title: () => 'Dead letters',
  load: async ({ query }) => {
    const [page, names] = await Promise.all([
      get('deadletters', { ...query, limit: PAGE_LEN }),
      providerNames(),
    ]);
    return { page, names };
  },
  draw({ page, names }, { query }) {
    const row = (letter) => [
      [
        h('a', { href: `#/deadletters/${letter.id}` }, letter.recipient),
        h(
          'span',
          { class: 'subject', title: letter.subject },
          letter.subject || '(the subject cannot be read)',
        ),
      ],
      [
        reason(letter.reason),
        letter.redrive === 'automatic' && h('small', {}, ' goes out by itself'),
      ],
      [
        h('span', { class: 'clamp', title: letter.lastError.message }, reply(letter.lastError)),
        letter.lastError.stage && h('small', {}, ` at ${letter.lastError.stage}`),
      ],
      letter.provider,
      count(letter.attempts),
      time(letter.deadAt),
      id(letter.id, 'job'),
      [
        h(
          'button',
          {
            type: 'button',
            'data-act': 'retry',
            'data-id': letter.id,
            'aria-label': `Send the mail to ${letter.recipient} again`,
          },
          'Send again…',
        ),
        ' ',
        h(
          'button',
          {
            type: 'button',
            class: 'grave',
            'data-act': 'discard',
            'data-id': letter.id,
            'aria-label': `Delete the mail to ${letter.recipient}`,
          },
          'Delete…',
        ),
      ],
    ];
    const columns = ['Mail', 'Reason', 'Last error', 'Provider', 'Attempts', 'Given up', 'Id', ''];
    const all = query.provider || query.reason || query.recipient ? 'all that match' : 'all';
    return [
      h('h1', { tabindex: '-1' }, 'Dead letters'),
      filter('deadletters', query, names, choice('reason', 'Reason', REASONS, query.reason)),
      h(
        'p',
        { class: 'acts' },
        h(
          'span',
          {},
          h('b', {}, count(page.total)),
          page.total === 1 ? ' dead letter' : ' dead letters',
        ),
        page.total > 0 &&
          h('button', { type: 'button', 'data-act': 'retry-all' }, `Send ${all} again…`),
      ),
      page.items.length
        ? table('Dead letters, newest first', columns, page.items, row)
        : nothing(query, page.next, 'There are no dead letters: nothing was given up.'),
      pages('deadletters', query, page.next),
    ];
  },
};
