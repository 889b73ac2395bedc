// Text on its way out: what JSON over UTF-8 can carry, and how long it is as the server counts. Pure.

const LONE_SURROGATE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;

/** Half a surrogate pair (a cut emoji) has no UTF-8: each becomes U+FFFD. */
export function wellFormed(text) {
  return text.replace(LONE_SURROGATE, '\uFFFD');
}

/** JSON that a strict reader takes: `JSON.stringify` would write lone surrogates as escapes, which Rust and others refuse. */
export function encode(value) {
  const text = JSON.stringify(value);
  if (!text?.includes('\\ud')) return text;
  return JSON.stringify(value, (_, inner) => (typeof inner === 'string' ? wellFormed(inner) : inner));
}

/** The value of JSON, or null when it is none: what is stored or received may be anything. */
export function decode(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Characters (code points), as the server counts `contentChars`. */
export function charsOf(text) {
  let count = 0;
  for (let i = 0; i < text.length; i += 1) {
    if (text.codePointAt(i) > 0xffff) i += 1;
    count += 1;
  }
  return count;
}

/** Bytes of well-formed text in UTF-8, without encoding it. */
export function bytesOf(text) {
  let bytes = text.length;
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    // Both halves of a pair: four bytes for two units.
    if (unit >= 0xd800 && unit <= 0xdfff) bytes += 1;
    else if (unit > 0x7ff) bytes += 2;
    else if (unit > 0x7f) bytes += 1;
  }
  return bytes;
}
