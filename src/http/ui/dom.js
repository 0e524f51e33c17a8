// Building nodes, and bringing the page up to date without disturbing its reader.
//
// Whatever came from elsewhere goes in as text or as the value of an attribute, never as HTML.

const SVG = 'http://www.w3.org/2000/svg';

/** An element. A prop that is null, undefined or false is left out. */
export function h(name, props = {}, ...children) {
  return fill(document.createElement(name), props, children);
}

/** An element of SVG. */
export function s(name, props = {}, ...children) {
  return fill(document.createElementNS(SVG, name), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? '' : String(value));
    }
  }
  node.append(
    ...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/**
 * Makes the children of `parent` be like `wanted`, keeping every node that can stay: with it stay
 * focus, selection, scroll and what was typed. Nodes with a `data-key` are told apart by it; what
 * is within a node with `data-keep` is left alone.
 */
export function patch(parent, wanted) {
  const keyed = new Map();
  for (const node of parent.children) {
    if (node.dataset.key) keyed.set(node.dataset.key, node);
  }
  let at = parent.firstChild;
  for (const next of wanted) {
    const found = next.dataset?.key ? keyed.get(next.dataset.key) : at;
    if (!found || !isLike(found, next)) {
      parent.insertBefore(next, at);
      continue;
    }
    if (found === at) at = at.nextSibling;
    else parent.insertBefore(found, at);
    update(found, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function isLike(node, next) {
  return node.nodeName === next.nodeName && node.dataset?.key === next.dataset?.key;
}

function update(node, next) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== next.data) node.data = next.data;
    return;
  }
  if (node.dataset.keep !== undefined) return;
  for (const { name } of [...node.attributes]) {
    // Whether something is unfolded is its reader's choice.
    if (name !== 'open' && !next.hasAttribute(name)) node.removeAttribute(name);
  }
  for (const { name, value } of [...next.attributes]) {
    if (name !== 'open' && node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  patch(node, [...next.childNodes]);
}
