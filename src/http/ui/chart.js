// The last hour of one number as a picture.

import { h, s } from './dom.js';
import { now } from './words.js';

const [WIDTH, HEIGHT, HOUR_MS] = [360, 48, 3_600_000];

/**
 * `series` are lists of values (null where there is none) for the times `at`: the first one is the
 * line, and a second one the part of it that is called `partName`. `tell` says a value in words.
 */
export function chart({ name, at, intervalSeconds, series, partName, tell }) {
  const end = now();
  const known = series[0].filter((value) => value !== null);
  const top = Math.max(1, ...known);
  const [last, highest] = [known.at(-1) ?? 0, Math.max(0, ...known)];
  const label = `${name} over the last hour: now ${tell(last)}, at most ${tell(highest)}`;
  const paths = series.flatMap((values, index) => {
    const runs = split(at, values, end, intervalSeconds);
    const area = runs.map(
      (run) => `M${run[0][0]} ${HEIGHT}${line(run, top, 'L')}L${run.at(-1)[0]} ${HEIGHT}Z`,
    );
    const drawn = [s('path', { class: `area-${index}`, d: area.join('') })];
    if (index === 0)
      drawn.push(s('path', { class: 'line', d: runs.map((run) => line(run, top, 'M')).join('') }));
    return drawn;
  });
  const grid = [0.25, 0.5, 0.75].map((part) =>
    s('path', { class: 'grid', d: `M${WIDTH * part} 0V${HEIGHT}` }),
  );
  const box = {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: 'none',
    role: 'img',
    'aria-label': label,
  };
  return h(
    'figure',
    { class: 'chart' },
    h(
      'figcaption',
      {},
      h('span', {}, name),
      h('b', {}, tell(last)),
      series[1]?.some((value) => 0 < value) && h('span', { class: 'part' }, partName),
    ),
    s('svg', box, s('title', {}, label), grid, paths),
    h(
      'p',
      { class: 'axis', 'aria-hidden': 'true' },
      h('span', {}, '1 h ago'),
      h('span', {}, `highest ${tell(highest)}`),
      h('span', {}, 'now'),
    ),
  );
}

/** The points of each stretch without a gap, as x and value. */
function split(at, values, end, intervalSeconds) {
  const runs = [];
  let before = -Infinity;
  at.forEach((stamp, index) => {
    const [moment, value] = [Date.parse(stamp), values[index]];
    const x = WIDTH * (1 - (end - moment) / HOUR_MS);
    if (value === null || value === undefined || x < 0) return;
    if (3_000 * intervalSeconds < moment - before) runs.push([]);
    before = moment;
    runs.at(-1).push([round(Math.min(x, WIDTH)), value]);
  });
  return runs;
}

function line(run, top, first) {
  return run
    .map(
      ([x, value], index) =>
        `${index ? 'L' : first}${x} ${round(HEIGHT - 1 - (HEIGHT - 4) * (value / top))}`,
    )
    .join('');
}

function round(number) {
  return Math.round(number * 10) / 10;
}
