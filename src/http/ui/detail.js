// One notification, and one dead letter, with every attempt.

import { get } from './api.js';
import { h } from './dom.js';
import { message } from './message.js';
import { facts, id, pill, reason, reply, some, span, state, time } from './words.js';

const STAGES = [
  'prepare',
  'connect',
  'greeting',
  'ehlo',
  'tls',
  'auth',
  'mail',
  'rcpt',
  'data',
  'dot',
];
const OUTCOMES = {
  delivered: 'good',
  deferred: 'warn',
  rejected: 'bad',
  unreachable: 'warn',
  internal: 'bad',
};

/** Where in the dialogue it ended. What comes before was passed, or was not needed. */
function dialogue(attempt) {
  const reached = STAGES.indexOf(attempt.stage);
  const tone = OUTCOMES[attempt.outcome] ?? 'bad';
  const steps = STAGES.map((stage, index) =>
    h(
      'li',
      { class: index < reached ? 'past' : index === reached ? `here ${tone}` : 'never' },
      stage,
    ),
  );
  return h(
    'ol',
    { class: 'dialogue', role: 'img', 'aria-label': `The dialogue ended at ${attempt.stage}` },
    steps,
  );
}

function length(ms) {
  return ms < 1000 ? `${ms} ms` : span(ms / 1000);
}

function attempts(made) {
  if (made.length === 0) return h('p', { class: 'empty' }, 'No attempt was made yet.');
  return h(
    'ol',
    { class: 'attempts', reversed: true },
    made
      .toReversed()
      .map((attempt) =>
        h(
          'li',
          { 'data-key': `attempt-${attempt.number}` },
          h(
            'p',
            { class: 'line' },
            h('b', {}, `Attempt ${attempt.number}`),
            ' ',
            pill(attempt.outcome, OUTCOMES[attempt.outcome] ?? 'bad'),
            ' ',
            h('span', {}, 'by ', h('b', {}, attempt.provider)),
            ' ',
            time(attempt.at),
            ' ',
            h('span', { class: 'took' }, `took ${length(attempt.durationMs)}`),
          ),
          dialogue(attempt),
          h('p', { class: 'reply' }, reply(attempt)),
        ),
      ),
  );
}

function letterActs(jobId) {
  return [
    h(
      'button',
      { type: 'button', class: 'main', 'data-act': 'retry', 'data-id': jobId },
      'Send again…',
    ),
    h(
      'button',
      { type: 'button', class: 'grave', 'data-act': 'discard', 'data-id': jobId },
      'Delete…',
    ),
  ];
}

const redrive = (value) =>
  value &&
  (value === 'automatic' ? 'goes out by itself when its provider recovers' : 'only by hand');

/** `#/notifications/{id}` */
export const notification = {
  every: 3000,
  load: (route) => get(`notifications/${encodeURIComponent(route.id)}`),
  title: (found) => found.subject,
  draw(found) {
    const canCancel = found.jobs.some((job) => ['ready', 'scheduled', 'dead'].includes(job.state));
    return [
      h(
        'h1',
        { tabindex: '-1', class: 'subject' },
        found.subject || '(the subject cannot be read)',
      ),
      facts(
        ['Notification', id(found.id, 'notification')],
        ['Taken in', time(found.acceptedAt)],
        ['Expires', found.expiresAt && time(found.expiresAt)],
        ['Chain', found.chain.join(', then ')],
        ['Warnings', found.warnings.length > 0 && found.warnings.join(' ')],
      ),
      canCancel &&
        h(
          'p',
          { class: 'acts' },
          h(
            'button',
            { type: 'button', class: 'grave', 'data-act': 'cancel', 'data-id': found.id },
            'Cancel what waits…',
          ),
        ),
      h('h2', {}, some(found.jobs.length, 'job')),
      found.jobs.map((job) =>
        h(
          'section',
          { class: 'card', 'data-key': job.id, 'aria-label': `Job to ${job.recipient}` },
          h(
            'p',
            { class: 'line' },
            state(job.state),
            ' ',
            h('b', {}, job.recipient),
            ' ',
            id(job.id, 'job'),
          ),
          facts(
            ['Provider', job.provider],
            ['Next attempt', job.nextAttemptAt && time(job.nextAttemptAt)],
            ['Sent again', redrive(job.redrive)],
          ),
          job.state === 'dead' &&
            h(
              'p',
              { class: 'acts' },
              letterActs(job.id),
              h('a', { href: `#/deadletters/${job.id}` }, 'Look at the message'),
            ),
          attempts(job.attempts),
        ),
      ),
    ]
      .flat()
      .filter(Boolean);
  },
};

// The message that its reader asked for, of the dead letter with this id.
let shown = { id: null, node: null };

/** Fetches the message of a dead letter, for the next drawing. */
export async function showMessage(jobId) {
  const letter = await get(`deadletters/${encodeURIComponent(jobId)}`, { include: 'content' });
  shown = { id: jobId, node: message(letter.content) };
}

/** `#/deadletters/{id}` */
export const letter = {
  every: 5000,
  load: (route) => get(`deadletters/${encodeURIComponent(route.id)}`),
  title: (found) => found.subject,
  draw(found) {
    const isShown = shown.id === found.id;
    return [
      h(
        'h1',
        { tabindex: '-1', class: 'subject' },
        found.subject || '(the subject cannot be read)',
      ),
      h('p', { class: 'line' }, reason(found.reason), ' ', h('span', {}, found.detail)),
      facts(
        ['To', found.recipient],
        ['Dead letter', id(found.id, 'job')],
        [
          'Notification',
          h('a', { href: `#/notifications/${found.notification}` }, 'with all its recipients'),
        ],
        ['Provider', found.provider],
        ['Chain', found.chain.join(', then ')],
        ['Taken in', time(found.acceptedAt)],
        ['Given up', time(found.deadAt)],
        ['Sent again', redrive(found.redrive)],
      ),
      h(
        'p',
        { class: 'acts' },
        letterActs(found.id),
        !isShown &&
          h(
            'button',
            { type: 'button', 'data-act': 'message', 'data-id': found.id },
            'Show the message',
          ),
      ),
      isShown && shown.node,
      h('h2', {}, some(found.attempts.length, 'attempt')),
      attempts(found.attempts),
    ].filter(Boolean);
  },
};
