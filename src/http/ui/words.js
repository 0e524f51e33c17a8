// How times, counts, ids and states are told.

import { h } from './dom.js';

export const STATES = {
  ready: 'ready',
  inFlight: 'in flight',
  scheduled: 'scheduled',
  delivered: 'delivered',
  dead: 'dead',
  cancelled: 'cancelled',
};
export const REASONS = ['rejected', 'deferred', 'unreachable', 'expired', 'internal'];
const TONES = {
  ready: 'calm',
  inFlight: 'busy',
  scheduled: 'warn',
  delivered: 'good',
  dead: 'bad',
  cancelled: 'calm',
  rejected: 'bad',
  unreachable: 'warn',
  deferred: 'warn',
  expired: 'bad',
  internal: 'bad',
};

/** 12345 as 12,345. */
export function count(number) {
  return Number(number).toLocaleString('en');
}

/** "1 job", "2 jobs". */
export function some(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? '' : 's'}`;
}

/** A length of time in its two largest units at most. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60)
    return minutes < 10 && whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

let ahead = 0;

/** Takes the server's time from an answer, so that a wrong clock here tells no wrong ages. */
export function setClock(date) {
  const there = Date.parse(date ?? '');
  if (!Number.isNaN(there) && 2000 < Math.abs(there - Date.now())) ahead = there - Date.now();
  else ahead = 0;
}

/** Now, as the server sees it. */
export function now() {
  return Date.now() + ahead;
}

/** A time relative to now, with the exact one in its title; a dash for none. */
export function time(stamp) {
  if (!stamp) return h('span', { class: 'none' }, '–');
  const seconds = (Date.parse(stamp) - now()) / 1000;
  const text =
    Math.abs(seconds) < 1 ? 'now' : seconds < 0 ? `${span(-seconds)} ago` : `in ${span(seconds)}`;
  return h(
    'time',
    { datetime: stamp, title: `${stamp.replace('T', ' ').replace('Z', ' UTC')}` },
    text,
  );
}

/** The end of an id, which copies the whole. */
export function id(whole, what) {
  const label = `Copy the id of the ${what}, ${whole}`;
  return h(
    'button',
    {
      type: 'button',
      class: 'id',
      'data-act': 'copy',
      'data-copy': whole,
      title: whole,
      'aria-label': label,
    },
    `…${whole.slice(-8)}`,
  );
}

/** One word that stands out; its tone repeats what it says. */
export function pill(text, tone) {
  return h('span', { class: `pill ${tone}` }, text);
}

export function state(name) {
  return pill(STATES[name] ?? name, TONES[name] ?? 'calm');
}

export function reason(name) {
  return pill(name, TONES[name] ?? 'bad');
}

/** Names and values, one under the other. */
export function facts(...pairs) {
  const shown = pairs.filter(([, value]) => value || value === 0);
  return h(
    'dl',
    { class: 'facts' },
    shown.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))),
  );
}

/** A reply as the server gave it: 550 5.1.1 no such user. */
export function reply(error) {
  // The message mostly quotes the reply with its code.
  const isQuoted = error.message.includes(String(error.code));
  const code = isQuoted ? '' : [error.code, error.enhancedCode].filter(Boolean).join(' ');
  return [code && h('code', {}, code), code && ' ', h('span', { class: 'said' }, error.message)];
}
