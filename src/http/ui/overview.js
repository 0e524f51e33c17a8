// Every queue and every provider at a glance.

import { get } from './api.js';
import { chart } from './chart.js';
import { h } from './dom.js';
import { count, facts, now, pill, span, time } from './words.js';

const HISTORY_AGE_MAX_MS = 5_000;

let kept = { at: 0, history: null };

/** The history is long and changes slowly, so it is not asked for each time. */
async function history() {
  if (HISTORY_AGE_MAX_MS <= Date.now() - kept.at) {
    kept = { at: Date.now(), history: await get('queue/history') };
  }
  return kept.history;
}

function age(stamp) {
  return stamp ? span((now() - Date.parse(stamp)) / 1000) : '–';
}

function health(provider) {
  if (!provider) return pill('✕ removed', 'bad');
  if (provider.disabled) return pill('– disabled', 'calm');
  if (provider.healthy === null) return pill('? not checked yet', 'calm');
  return provider.healthy ? pill('✓ healthy', 'good') : pill('✕ unhealthy', 'bad');
}

/** Those in trouble first. */
function rank({ provider, queue }) {
  if (!provider) return 0;
  if (provider.healthy === false && !provider.disabled) return 1;
  return queue.depth ? 2 : 3;
}

function pictures(queue, shown) {
  const own = shown.providers.find((one) => one.name === queue.name) ?? {
    depth: [],
    parked: [],
    oldestSeconds: [],
  };
  const { at, intervalSeconds } = shown;
  const age = (seconds) => (seconds ? span(seconds) : '–');
  return h(
    'div',
    { class: 'charts' },
    chart({
      name: 'Queue',
      at,
      intervalSeconds,
      series: [own.depth, own.parked],
      partName: 'parked',
      tell: count,
    }),
    chart({ name: 'Oldest', at, intervalSeconds, series: [own.oldestSeconds], tell: age }),
  );
}

function card({ provider, queue, shown }) {
  const why =
    provider && !provider.disabled && provider.healthy === false ? provider.lastError : null;
  const broken = (provider?.disabled ? [] : (provider?.conditions ?? [])).filter(
    (one) => one.status !== 'True' && one.message && one.message !== why,
  );
  const bar = h('meter', {
    min: 0,
    max: Math.max(1, queue.capacity),
    value: queue.depth,
    high: queue.capacity * 0.8,
    'aria-label': `${count(queue.depth)} of ${count(queue.capacity)} places taken`,
  });
  const counts = [
    ['ready', 'ready'],
    ['scheduled', 'scheduled'],
    ['inFlight', 'in flight'],
  ];
  return h(
    'section',
    { class: 'card', 'data-key': `provider-${queue.name}`, 'aria-label': `Provider ${queue.name}` },
    h(
      'p',
      { class: 'line' },
      h('b', { class: 'name' }, queue.name),
      ' ',
      health(provider),
      ' ',
      provider?.default && pill('default', 'calm'),
      ' ',
      provider?.insecureSkipVerify && pill('any certificate', 'warn'),
    ),
    why && h('p', { class: 'why' }, why),
    queue.heldReason && h('p', { class: 'why' }, `Takes no mail for now: ${queue.heldReason}`),
    broken.map((one) => h('p', { class: 'why' }, `${one.type}: ${one.message} (${one.reason})`)),
    !provider &&
      h(
        'p',
        { class: 'why' },
        'It is not configured any more. Its jobs go to the next provider of their chain, ',
        'or become dead letters.',
      ),
    h(
      'div',
      { class: 'places' },
      bar,
      h('span', {}, `${count(queue.depth)} of ${count(queue.capacity)}`),
    ),
    h(
      'p',
      { class: 'counts' },
      counts.map(([key, word]) =>
        h(
          'a',
          { href: `#/jobs?state=${key}&provider=${encodeURIComponent(queue.name)}` },
          h('b', {}, count(queue[key])),
          ` ${word}`,
        ),
      ),
      h(
        'a',
        { href: `#/deadletters?provider=${encodeURIComponent(queue.name)}` },
        h('b', {}, count(queue.parked)),
        ' parked',
      ),
    ),
    pictures(queue, shown),
    provider &&
      facts(
        ['Next check', provider.nextCheck && time(provider.nextCheck)],
        ['Last passed', time(provider.lastHealthCheck)],
        ['Unreachable since', provider.circuitOpenSince && time(provider.circuitOpenSince)],
        ['Held until', queue.heldUntil && time(queue.heldUntil)],
        ['Last mail tried', provider.lastSendAttempt && time(provider.lastSendAttempt)],
        ['Its error', provider.lastSendError !== why && provider.lastSendError],
        ['Next attempt', queue.nextAttemptAt && time(queue.nextAttemptAt)],
        ['Server', `${provider.host}:${provider.port}, ${provider.security}`],
        ['Sender', provider.sender.address],
      ),
  );
}

/** How many dead letters there are; null for who may not see them. */
async function deadCount() {
  try {
    const { total } = await get('deadletters', { limit: 1 });
    return total;
  } catch (problem) {
    if (problem.status === 403) return null;
    throw problem;
  }
}

/** `#/` */
export const overview = {
  every: 3000,
  title: () => 'Overview',
  load: async () => {
    const [queue, providers, dead, shown] = await Promise.all([
      get('queue'),
      get('providers'),
      deadCount(),
      history(),
    ]);
    return { queue, providers: providers.items, dead, shown };
  },
  draw({ queue, providers, dead, shown }) {
    const all = queue.providers.map((one) => ({
      queue: one,
      provider: providers.find((provider) => provider.name === one.name),
      shown,
    }));
    all.sort((a, b) => rank(a) - rank(b) || a.queue.name.localeCompare(b.queue.name));
    const parked = queue.providers.reduce((sum, one) => sum + one.parked, 0);
    const ill = all.filter((one) => rank(one) < 2).length;
    const tile = (name, value, more, tone) =>
      h(
        'div',
        { class: `tile ${tone ?? ''}` },
        h('dt', {}, name),
        h('dd', {}, h('b', {}, value), ' ', h('small', {}, more)),
      );
    return [
      h('h1', { tabindex: '-1' }, 'Overview'),
      h(
        'dl',
        { class: 'tiles' },
        tile('In the queues', count(queue.depth), `of ${count(queue.capacity)}`),
        tile('Oldest waits', age(queue.oldestAcceptedAt), ''),
        tile('Parked', count(parked), 'go out by themselves', parked && 'warn'),
        dead === null
          ? tile('Dead letters', '–', 'not yours to see')
          : tile('Dead letters', count(dead), 'parked ones included', dead && 'bad'),
        tile('Providers in trouble', count(ill), `of ${count(all.length)}`, ill && 'bad'),
      ),
      all.length
        ? h('div', { class: 'cards' }, all.map(card))
        : h('p', { class: 'empty' }, 'No provider is configured, so nothing can be sent.'),
    ];
  },
};
