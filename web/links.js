// Web addresses in text. What is shown is what was written; where it leads is read by the browser's own parser, and an
// address that could pass for another one (a name before the host, as in `https://bank.example@evil.example`) stays text.

const FOUND = /(?<![\p{L}\p{N}@/.:_-])(?:https?:\/\/|www\.)[^\s<>\p{C}]+/giu;
/** Ends a sentence rather than an address. */
const TRAILING = /[.,;:!?’”»›…*]$/u;
/** What opens and closes around an address. */
const PAIRS = { ')': '(', ']': '[', '}': '{' };
const QUOTES = { '"': '"', "'": "'", '“': '”', '‘': '’', '«': '»', '‹': '›', '„': '“', '(': null, '[': null };

/** @returns {{text: string, href: string | null}[]} the text in pieces; those with `href` are links */
export function pieces(text) {
  const found = [];
  let from = 0;
  for (const match of text.matchAll(FOUND)) {
    const address = trimmed(match[0], text[match.index - 1]);
    const href = target(address);
    if (href === null) continue;
    if (match.index > from) found.push({ text: text.slice(from, match.index), href: null });
    found.push({ text: address, href });
    from = match.index + address.length;
  }
  if (from < text.length) found.push({ text: text.slice(from), href: null });
  return found;
}

/** Fills an element with text whose web addresses are links. Nothing in it is read as markup. */
export function fillText(element, text) {
  element.replaceChildren(...pieces(text).map((piece) => (piece.href === null ? piece.text : link(piece))));
}

function trimmed(address, before) {
  // In quotes it ends where they do.
  const closing = QUOTES[before];
  if (closing && address.includes(closing)) address = address.slice(0, address.indexOf(closing));
  for (;;) {
    const last = address.at(-1);
    const quote = last === '"' || last === "'";
    const lone = quote ? count(address, last) % 2 === 1 : last in PAIRS && count(address, last) > count(address, PAIRS[last]);
    if (!lone && !TRAILING.test(address)) return address;
    address = address.slice(0, -1);
  }
}

function count(text, char) {
  return text.split(char).length - 1;
}

/** Where it leads, or null if it is no address to be linked. */
function target(address) {
  let url;
  try {
    url = new URL(/^www\./i.test(address) ? `https://${address}` : address);
  } catch {
    return null;
  }
  const authority = address.replace(/^https?:\/\//i, '').split(/[/?#\\]/)[0];
  const hides = url.username !== '' || url.password !== '' || authority.includes('@') || address.includes('\\');
  const plain = url.protocol === 'https:' || url.protocol === 'http:';
  const named = url.hostname.includes('.') || url.hostname === 'localhost' || url.hostname.startsWith('[');
  return plain && named && !hides && !(/^www\./i.test(address) && url.hostname.split('.').length < 3) ? url.href : null;
}

function link({ text, href }) {
  const anchor = document.createElement('a');
  anchor.href = href;
  anchor.target = '_blank';
  anchor.rel = 'noopener noreferrer nofollow';
  anchor.textContent = text.replace(/^https:\/\//i, '');
  return anchor;
}
